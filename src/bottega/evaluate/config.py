"""Settings of the verb `eval`. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bottega.core.schema import Names, OnModel, Seed, Writes, parse_override

DEFAULT_CONTEXT = 2048
# Settings that have no effect without another.
NEEDS: dict[str, tuple[str, ...]] = {
    "tasks or a suite": (
        *("data", "num_fewshot", "fewshot_seed", "fewshot_as_multiturn", "system_instruction", "limit", "gen_kwargs"),
        *("vary", "allow_code", "keep_going", "reuse", "store", "max_batch", "cache_tokens"),
    ),
    "text": ("against", "baselines", "context", "stride", "max_tokens"),
    "questions": ("max_questions",),
    "text or questions": ("samples",),
    "baselines": ("xz_megabytes",),
}
Prompt = Literal["auto", "chat", "plain"]


def _at_commas(value: Any) -> Any:
    """`a,b` as the command line has it, and several of those, as one list."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)):
        return value
    return tuple(part for each in values for part in (each.split(",") if isinstance(each, str) else [each]) if part)


def _settings(value: Any) -> Any:
    """`a=1,b=x` as the command line has it, as a table."""
    if not isinstance(value, str):
        return value
    pairs = [parse_override(part) for part in value.split(",") if part]
    return {".".join(name): setting for name, setting in pairs}


class EvaluateModel(OnModel):
    """Measure models: on tasks as lm-evaluation-harness describes them, on a text, on questions of a corpus."""

    sections = {"model": "Model and machine", "tasks": "Tasks", "text": "Text and questions", "out": "Options"}
    without_effect = frozenset({"reuse", "store", "max_batch", "cache_tokens"})

    model: Names  # pyright: ignore[reportIncompatibleVariableOverride]
    """Model folder, or org/name[@revision] of the hub; several are compared (with --tasks or --suite)."""
    tasks: Annotated[Names, BeforeValidator(_at_commas)] = ()
    """Tasks to measure: names, groups, tags, patterns (mmlu_*), or .yaml files in lm-evaluation-harness's schema."""
    suite: str | None = None
    """A suite of tasks: smoke (needs no data), nous, openllm, openllm-v2."""
    data: Path | None = None
    """Folder with the tasks' documents: DATA/<dataset_path>/<dataset_name>/<split>.jsonl (.json, .csv, .parquet)."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples before each question (default: what the task or suite says); a task that says 0 keeps it."""
    fewshot_seed: int = 1234
    """Seed by which examples are drawn."""
    fewshot_as_multiturn: bool = False
    """With a chat template: each example as a turn of its own, not all in the first."""
    system_instruction: str | None = None
    """Text before everything: the system message of a chat."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first LIMIT documents of each task (to try things out: it is not the task's score)."""
    gen_kwargs: Annotated[dict[str, Any], BeforeValidator(_settings)] = Field(default_factory=dict)
    """Settings of generated answers in place of the task's: max_gen_toks=64,temperature=0.7."""
    vary: int = Field(default=0, ge=0)
    """Ask again with this many other draws of examples, and in the other form (chat, plain): how far figures move."""
    allow_code: bool = False
    """Run functions that task files bring (!function); they have your rights."""
    keep_going: bool = False
    """Measure the tasks that can be, where others cannot: those are listed as failed."""
    reuse: bool = True
    """Take answers that were computed before, by the same model, for the same task and prompt."""
    store: Path | None = None
    """Folder of answers computed before (default: WORKSPACE/evaluations)."""
    max_batch: int = Field(default=32, ge=1)
    """Answers that are computed together."""
    cache_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the engine's cache holds (default: 16384, or two of the longest requests)."""
    text: Path | None = None
    """Text to score: a text file, a .jsonl file with "text" in each row, or a corpus folder (its held-out part)."""
    against: str | None = None
    """Reference model to compare with on the same tokens."""
    questions: Path | None = None
    """Multiple-choice questions: a questions.jsonl file or a corpus folder."""
    baselines: Path | None = None
    """Training text (file, .jsonl or corpus folder) for unigram, bigram and xz on the same bytes."""
    context: int | None = Field(default=None, ge=2)
    """Tokens that the model sees at once (default: the model's own context, at most 2048)."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens scored per window of a long document (default: half of --context)."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Score at most so many tokens: whole documents, drawn with --seed from all of them."""
    max_questions: int | None = Field(default=None, ge=1)
    """Ask only this many questions, drawn with --seed."""
    prompt: Prompt = "auto"
    """How it is asked: chat (the model's template), plain; auto: questions by chat if it has one, tasks plain."""
    xz_megabytes: int = Field(default=8, ge=1)
    """Megabytes of training text, from its end, that prime xz (about 0.7 s each)."""
    samples: int = Field(default=0, ge=0)
    """Answer this many questions of each group in full, to be read (without questions: continue held-out texts)."""
    out: Path | None = None
    """Folder to write evaluation.json and the items (items.jsonl, predictions.jsonl) into (default: only show)."""
    overwrite: bool = False
    """Replace OUT if it exists already."""
    seed: Seed = 0
    """Seed of the bootstrap and of the drawing of documents and questions."""

    @model_validator(mode="after")
    def _consistent(self) -> EvaluateModel:
        measures_tasks = bool(self.tasks) or self.suite is not None
        if self.text is None and self.questions is None and not measures_tasks:
            raise ValueError("nothing to measure: give tasks, a suite, text or questions")
        if not self.model:
            raise ValueError("give a model")
        if len(self.model) > 1 and (self.text is not None or self.questions is not None):
            raise ValueError("text and questions are measured for one model at a time: give one")
        if len(self.model) > 1 and self.adapter:
            raise ValueError("an adapter is for one model: give one")
        if len(set(self.model)) < len(self.model):
            raise ValueError("a model is given twice")
        if self.fewshot_as_multiturn and self.prompt != "chat" and not self.vary:
            raise ValueError("fewshot_as_multiturn makes turns of a chat: set prompt to chat")
        present = {
            "tasks or a suite": measures_tasks,
            "text": self.text is not None,
            "questions": self.questions is not None,
            "text or questions": self.text is not None or self.questions is not None,
            "baselines": self.baselines is not None,
        }
        for needed, names in NEEDS.items():
            if not present[needed] and (given := next((name for name in names if name in self.model_fields_set), None)):
                raise ValueError(f"{given} needs {needed}: give {needed} too")
        if self.context is not None and self.stride is not None and self.stride > self.context:
            raise ValueError(f"stride {self.stride} is longer than context {self.context}: tokens would be skipped")
        return self


class ExtendContext(Writes, OnModel):
    """Give a model a longer context by scaling its rotary positions, and measure what it makes of it."""

    to: int = Field(ge=2)
    """The new context, in tokens."""
    method: Literal["yarn", "linear", "dynamic", "ntk"] = "yarn"
    """How: yarn, linear, dynamic (grows with the text), ntk (another base, once and for all)."""
    text: Path | None = None
    """Text to measure on: long documents are best (default: the language topics of this Python's documentation)."""
    tokens: int | None = Field(default=None, ge=2)
    """Tokens to measure on, in pieces of the new context (default: two pieces)."""
