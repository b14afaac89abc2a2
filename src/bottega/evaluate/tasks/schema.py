"""A task as lm-evaluation-harness's YAML describes it: the common core of its schema. Imports no torch.

Source: the keys and defaults of lm-evaluation-harness 0.4 (`config/task.py`), whose task files run unchanged. What is
not understood is refused by name, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bottega.core.errors import UserError, did_you_mean

OutputType = Literal["loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until"]
Text = str | int | Callable[..., Any] | None
# Keys that cannot be obeyed here, with the reason.
REFUSED = {
    "doc_to_image": "the models here read text only",
    "doc_to_audio": "the models here read text only",
    "use_prompt": "prompts of promptsource are not there: write doc_to_text and doc_to_target",
    "class": "tasks that are Python classes are not there",
    "custom_dataset": "data are read from files: give --data",
}
# Keys without any effect on a score here: notes, and switches of the downloader.
NOTES = frozenset({"should_decontaminate", "doc_to_decontamination_query"})
DEFAULT_MAX_TOKENS = 256


class Metric(BaseModel):
    """One entry of `metric_list`; what else stands there are options of the metric."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    metric: str | Callable[..., Any]
    aggregation: str | Callable[..., Any] | None = None
    higher_is_better: bool | None = None
    hf_evaluate: bool = False

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric if isinstance(self.metric, str) else self.metric.__name__

    @property
    def options(self) -> dict[str, Any]:
        """Options of the metric (`ignore_case`, `regexes_to_ignore`, …)."""
        return dict(self.model_extra or {})


class Pipeline(BaseModel):
    """One entry of `filter_list`: what is taken from a response, step by step."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str
    filter: list[dict[str, Any]]


class Fewshot(BaseModel):
    """`fewshot_config`: how examples are chosen and, where they differ from questions, written."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    sampler: Literal["default", "first_n"] = "default"
    split: str | None = None
    process_docs: Callable[..., Any] | None = None
    fewshot_indices: list[int] | None = None
    samples: list[dict[str, Any]] | Callable[[], list[dict[str, Any]]] | None = None
    doc_to_text: Text = None
    doc_to_choice: str | list[Any] | dict[str, Any] | Callable[..., Any] | None = None
    doc_to_target: str | int | list[Any] | Callable[..., Any] | None = None
    gen_prefix: str | None = None
    fewshot_delimiter: str | None = None
    target_delimiter: str | None = None


class TaskConfig(BaseModel):
    """One task: where its documents are, how they become prompts, and how answers count."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    task: str
    task_alias: str | None = None
    tag: str | list[str] | None = None
    dataset_path: str
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    process_docs: Callable[..., Any] | None = None
    doc_to_text: Text = None
    doc_to_target: str | int | list[Any] | Callable[..., Any] | None = None
    doc_to_choice: str | list[Any] | dict[str, Any] | Callable[..., Any] | None = None
    process_results: Callable[..., Any] | None = None
    description: str = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_config: Fewshot | None = None
    num_fewshot: int | None = Field(default=None, ge=0)
    metric_list: list[Metric] = Field(default_factory=list)
    output_type: OutputType = "generate_until"
    generation_kwargs: dict[str, Any] | None = None
    repeats: int = Field(default=1, ge=1)
    filter_list: list[Pipeline] | None = None
    gen_prefix: str | None = None
    unsafe_code: bool = False
    metadata: dict[str, Any] | None = None

    @property
    def version(self) -> int | float | str:
        """`metadata.version`."""
        version = (self.metadata or {}).get("version", 0)
        return version if isinstance(version, (int, float)) else str(version)  # YAML makes a date of 2024-01-01

    @property
    def split(self) -> str:
        """The split whose documents are asked: the test split, else the validation split."""
        split = self.test_split or self.validation_split
        assert split is not None  # `parse` has checked it
        return split

    @property
    def metrics(self) -> list[Metric]:
        """`metric_list`, or what lm-evaluation-harness measures where there is none."""
        if self.metric_list:
            return self.metric_list
        names = {
            "loglikelihood": ("perplexity", "acc"),
            "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
            "multiple_choice": ("acc", "acc_norm"),
            "generate_until": ("exact_match",),
        }[self.output_type]
        return [Metric(metric=name) for name in names]

    @property
    def pipelines(self) -> list[Pipeline]:
        """`filter_list`, or the one that takes the first response."""
        return self.filter_list or [Pipeline(name="none", filter=[{"function": "take_first"}])]


@dataclass(frozen=True)
class Group:
    """Tasks (and groups) under one name; `metrics` are averaged over them: (metric, filters, by size)."""

    name: str
    alias: str
    members: list[str]
    metrics: list[tuple[str, list[str], bool]] = field(default_factory=list)


def parse_task(data: dict[str, Any], where: str) -> TaskConfig:
    """A task of plain data; raises UserError that names the file and the key."""
    data = {key: value for key, value in data.items() if key not in NOTES}
    for key, reason in REFUSED.items():
        if data.pop(key, None) is not None:
            raise UserError(f"{where}: {key} cannot be obeyed: {reason}")
    try:
        task = TaskConfig.model_validate(data)
    except ValidationError as error:
        raise _refusal(error, where) from None
    _check(task, where)
    return task


def _refusal(error: ValidationError, where: str) -> UserError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if isinstance(part, (str, int)))
    if problem["type"] == "extra_forbidden":
        return UserError(f"{where}: unknown key {key!r}", hint=did_you_mean(key, TaskConfig.model_fields))
    if problem["type"] == "missing":
        return UserError(f"{where}: {key!r} is missing")
    return UserError(f"{where}: {key}: {problem['msg']}")


def _check(task: TaskConfig, where: str) -> None:
    """What can be seen to be wrong before any document is read."""
    if not (task.test_split or task.validation_split):
        raise UserError(f"{where}: neither test_split nor validation_split is given")
    needed = ["doc_to_target"] if task.output_type == "loglikelihood_rolling" else ["doc_to_text", "doc_to_target"]
    if task.output_type == "multiple_choice":
        needed.append("doc_to_choice")
    if missing := [key for key in needed if getattr(task, key) is None]:
        raise UserError(f"{where}: output_type {task.output_type} needs {' and '.join(missing)}")
    if task.output_type == "loglikelihood_rolling" and task.num_fewshot:
        raise UserError(f"{where}: loglikelihood_rolling scores whole documents: num_fewshot must be 0")
    if task.output_type != "generate_until":
        steps = {step.get("function") for pipeline in task.pipelines for step in pipeline.filter}
        if len(task.pipelines) > 1 or steps != {"take_first"}:
            raise UserError(f"{where}: filter_list needs output_type generate_until: scores are not filtered")
    if wrong := next((each.name for each in task.metrics if each.hf_evaluate and each.name != "exact_match"), None):
        raise UserError(f"{where}: metric {wrong} of Hugging Face's evaluate (hf_evaluate) is not there")
    if task.generation_kwargs is not None and task.output_type != "generate_until":
        raise UserError(f"{where}: generation_kwargs need output_type generate_until")
    assert task.output_type in get_args(OutputType)
