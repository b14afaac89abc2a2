"""The plan of measuring tasks: what is there, what fits, and how much there is to compute. Imports no torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bottega.checkpoint.adapter_base import adapter_checks
from bottega.checkpoint.hub import locate, locate_planned
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.machine import measure
from bottega.core.plan import Check, Plan, Specs
from bottega.core.view import human_count
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.prepare import Selection, asking_of, prepare, select
from bottega.evaluate.harness.requests import Asked, Generation, common
from bottega.evaluate.tasks.documents import SHIPPED, read_split, split_files
from bottega.tokenizer.tokenizer import Tokenizer

SAMPLE = 24  # documents of each task that are made prompts of, to see that they can be and how long they are
EFFICIENCY, ANSWER_EFFICIENCY = 0.4, 0.08  # of the measured rate of products: long rows, and one token at a time
ANSWER_SHARE = 0.5  # of the tokens that an answer may have
SECONDS_PER_MODEL = 3.0


def plan_tasks(plan: Plan, config: EvaluateModel, specs: Specs) -> None:
    """Add checks, work and cost of the tasks to the plan. Raises UserError for what cannot be asked at all."""
    selection = select(config)
    for number, model in enumerate(config.model):
        name = f"model.{number}" if number else "model"
        plan.inputs[name] = locate_planned(model, specs)
        if not specs.is_predicted(Path(model)):
            plan.checks += adapter_checks(model, config.adapter, specs) if number else []
            _plan_model(plan, config, selection, specs.of(Path(model), ModelSpec), model)
    plan.inputs |= _files(config, selection)


def _plan_model(plan: Plan, config: EvaluateModel, selection: Selection, spec: ModelSpec, model: str) -> None:
    tokenizer = Tokenizer.load(locate(model))
    limit = min(SAMPLE, config.limit or SAMPLE)
    prepared = prepare(config, selection, tokenizer, spec.config.context_length, asking_of(config, tokenizer), limit)
    parts = spec.config.parameters_by_part()
    body = sum(parts.values()) - (0 if spec.config.tie_word_embeddings else parts["embedding"])
    rates = measure()
    rate = rates.bfloat16 if plan.details.get("dtype") == "bfloat16" else rates.float32
    documents = tokens = answers = 0.0
    for name, asked in prepared.asked.items():
        count = len(_documents(config, selection, name))
        scale = min(count, config.limit or count) / len(asked)
        read, said = _amount(asked)
        documents, tokens, answers = documents + scale * len(asked), tokens + scale * read, answers + scale * said
    times, count = 1 + config.vary, len(prepared.asked)
    named = f"{count} tasks" if count > 3 else ", ".join(prepared.asked) or "no task"
    plan.work.append(
        f"{Path(model).name}: {named}, {human_count(documents)} documents, about "
        f"{human_count(tokens)} tokens to read" + (f" and up to {human_count(answers)} to say" if answers else "")
    )
    plan.checks += _failures(prepared.errors)
    cost, weights = plan.cost, spec.config.parameter_count()
    spent = 2 * body * times * (tokens / EFFICIENCY + answers / ANSWER_EFFICIENCY) / rate
    plan.cost = replace(
        cost,
        bytes_read=cost.bytes_read + 4 * weights,
        peak_memory=max(cost.peak_memory or 0, 8 * weights + (1 << 30)),
        flops=cost.flops + 2.0 * body * times * (tokens + answers),
        seconds=(cost.seconds or 0) + SECONDS_PER_MODEL + spent,
    )


def _files(config: EvaluateModel, selection: Selection) -> dict[str, Path]:
    """The files that are read: those of tasks, and of their documents where they do not come with Bottega."""
    found = {f"task.{Path(name).stem}": Path(name) for name in config.tasks if name.endswith((".yaml", ".yml"))}
    for name, task in selection.tasks.items():
        if task.dataset_path.startswith(SHIPPED):
            continue
        for split in dict.fromkeys(filter(None, (task.split, task.fewshot_split))):
            with suppress(UserError):  # it is listed as failed
                files = split_files(task, split, config.data)
                found |= {f"data.{name}.{split}.{number}": file for number, file in enumerate(files)}
    return found


def _failures(errors: dict[str, str]) -> list[Check]:
    return [Check(f"task {name}", True, f"will be listed as failed: {why}") for name, why in errors.items()]


def _documents(config: EvaluateModel, selection: Selection, name: str) -> list[dict[str, object]]:
    task = selection.tasks[name]
    try:
        return read_split(task, task.split, config.data)
    except UserError:
        if not config.keep_going:
            raise
        return []


def _amount(asked: list[Asked]) -> tuple[float, float]:
    """Tokens to read, those that requests begin with alike counted once; and tokens to say."""
    requests = sorted({request.ids for each in asked for request in each.requests})
    read, before = 0, tuple[int, ...]()
    for ids in requests:
        read, before = read + len(ids) - common(before, ids), ids
    said = sum(each.max_tokens for ask in asked for each in ask.generations if isinstance(each, Generation))
    return read, ANSWER_SHARE * said
