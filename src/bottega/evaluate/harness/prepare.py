"""From settings to what is asked of one model, for all tasks, before anything is computed. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from bottega.core.errors import BottegaError, UserError
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.requests import Asked, Encoder
from bottega.evaluate.harness.results import require_metrics
from bottega.evaluate.tasks import filters, suites
from bottega.evaluate.tasks.code_tasks import require_isolation
from bottega.evaluate.tasks.ifeval import language_detector
from bottega.evaluate.tasks.load import Loaded, expand, load_tasks
from bottega.evaluate.tasks.prompts import Asking, ChatTemplate, Prompts
from bottega.evaluate.tasks.schema import TaskConfig
from bottega.tokenizer.template import render
from bottega.tokenizer.tokenizer import Tokenizer


@dataclass
class Selection:
    """The tasks that are measured, each with the number of examples that a suite wants, and their groups."""

    tasks: dict[str, TaskConfig]
    loaded: Loaded
    num_fewshot: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class Prepared:
    """What one model is asked: of each task the prompts with their requests, and why others cannot be asked."""

    asked: dict[str, list[Asked]] = field(default_factory=dict)
    num_fewshot: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def select(config: EvaluateModel) -> Selection:
    """The tasks of `--tasks` and `--suite`; raises UserError for what is not there, or (unless going on) is no task."""
    wanted: dict[str, int | None] = dict.fromkeys(config.tasks)
    if config.suite is not None:
        wanted |= {entry.task: entry.num_fewshot for entry in suites.load_suite(config.suite).entries}
    loaded, found, errors = Loaded(), Selection({}, Loaded()), {}
    for name, shots in wanted.items():
        try:
            part = load_tasks([name], allow_code=config.allow_code)
            for task in part.tasks.values():
                filters.check(task.pipelines)
                require_metrics(task)
                # Before anything is generated that could not be run, or not be told the language of.
                if task.unsafe_code:
                    require_isolation()
                if task.dataset_path.endswith("/IFEval"):
                    language_detector()
        except BottegaError as error:
            if not config.keep_going:
                raise
            errors[name] = error.message
            continue
        loaded.add(part)
        if shots is not None:
            found.num_fewshot |= dict.fromkeys(part.tasks, shots)
    if config.gen_kwargs and not any(task.output_type == "generate_until" for task in loaded.tasks.values()):
        raise UserError("gen_kwargs are for answers that are generated, and none of these tasks generates any")
    found.tasks, found.loaded, found.errors = loaded.tasks, loaded, errors
    return found


def asking_of(config: EvaluateModel, tokenizer: Tokenizer) -> Asking:
    """How this model is asked; raises UserError if it has no chat template and one is wanted."""
    template = None
    if config.prompt == "chat":
        template = chat_template(tokenizer)
    return Asking(
        num_fewshot=config.num_fewshot,
        fewshot_seed=config.fewshot_seed,
        fewshot_as_multiturn=config.fewshot_as_multiturn,
        system_instruction=config.system_instruction,
        chat_template=template,
    )


def chat_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The model's template; raises UserError if it has none."""
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.folder} has no chat template", hint="Use --prompt plain.")
    return partial(_rendered, tokenizer)


def prepare(
    config: EvaluateModel,
    selection: Selection,
    tokenizer: Tokenizer,
    context_length: int,
    asking: Asking,
    limit: int | None = None,
) -> Prepared:
    """Every task's requests. Raises the error of the first that cannot be asked, unless `keep_going`."""
    encoder = Encoder(tokenizer, context_length, markup=asking.chat_template is not None)
    found, first = Prepared(errors=dict(selection.errors)), None
    for name, task in selection.tasks.items():
        shots = config.num_fewshot if config.num_fewshot is not None else selection.num_fewshot.get(name)
        try:
            prompts = Prompts(task, config.data, replace(asking, num_fewshot=shots))
            found.asked[name] = encoder.ask(task, prompts.build(limit), _overrides(config, task))
            found.num_fewshot[name] = prompts.num_fewshot
        except BottegaError as error:
            found.errors[name] = error.message
            first = first or error
    if first is not None and not config.keep_going:
        if more := len(found.errors) - 1:
            either = (
                f"{more} more of {len(selection.tasks)} tasks cannot be asked either: --keep-going measures the rest."
            )
            hint = f"{first.hint} {either}".strip()
            raise type(first)(first.message, hint=hint)
        raise first
    return found


def group_tasks(selection: Selection) -> Mapping[str, list[str]]:
    """The tasks under each group."""
    return {name: expand(group.members, selection.loaded) for name, group in selection.loaded.groups.items()}


def _overrides(config: EvaluateModel, task: TaskConfig) -> dict[str, object]:
    return dict(config.gen_kwargs) if task.output_type == "generate_until" else {}


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]], opens_turn: bool) -> str:
    """The conversation as the template writes it; the last message stays open where it is the answer's beginning."""
    assert tokenizer.chat_template is not None
    text = render(
        tokenizer.chat_template, messages, add_generation_prompt=opens_turn, tools=None, **tokenizer.special_tokens
    )
    if opens_turn:
        return text
    last = messages[-1]["content"].strip()
    place = text.rfind(last)
    if place < 0:
        raise UserError("the chat template does not show the beginning of the answer (gen_prefix)")
    return text[: place + len(last)]
