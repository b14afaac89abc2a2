"""The run of the tasks: each model in turn, each task in turn; what fails is told, and voids nothing else."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.hub import locate
from bottega.core.errors import BottegaError, UserError
from bottega.core.hashing import NOT_CONTENT, digest_data, digest_path
from bottega.core.progress import Reporter
from bottega.core.workspace import workspace_path
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.answers import answer_all
from bottega.evaluate.harness.prepare import Prepared, Selection, asking_of, chat_template, group_tasks, prepare, select
from bottega.evaluate.harness.requests import Asked, Generation
from bottega.evaluate.harness.results import TaskResult, group_figures, task_result
from bottega.evaluate.harness.store import Answer, Store
from bottega.evaluate.items import Item
from bottega.evaluate.report.paired import comparisons
from bottega.evaluate.report.read import as_measured
from bottega.evaluate.tasks.prompts import Asking
from bottega.generate.config import OnEngine
from bottega.generate.generator import Generator
from bottega.model.kernels import library
from bottega.tokenizer.tokenizer import Tokenizer

CACHE_TOKENS = 16384
Variants = list[tuple[str, Asking]]


def measure_tasks(config: EvaluateModel, reporter: Reporter) -> tuple[dict[str, Any], list[Item]]:
    """`evaluation.json`'s part about tasks, and every item. Raises UserError before the first forward pass."""
    selection = select(config)
    names = _names(config.model)
    for model in config.model[1:]:  # before the first one's work, which the refusal of another would make vain
        tokenizer, length = Tokenizer.load(locate(model)), ModelFolder.open(model).config.context_length
        prepare(config, selection, tokenizer, length, asking_of(config, tokenizer), config.limit)
    models, items = [], []
    for model, name in zip(config.model, names, strict=True):
        data, found = _measure_model(config, selection, model, name, reporter)
        models.append(data)
        items += found
        gc.collect()  # the model goes before the next one comes
    data: dict[str, Any] = {"suite": config.suite, "models": models}
    if len(models) == 1:
        data["results"] = {task: _with_short_names(figures) for task, figures in models[0]["results"].items()}
    else:
        data["comparisons"] = comparisons(as_measured(data, items))
    return data, items


def _measure_model(
    config: EvaluateModel, selection: Selection, model: str, name: str, reporter: Reporter
) -> tuple[dict[str, Any], list[Item]]:
    started = time.monotonic()
    generator = _generator(config, model)
    asking = asking_of(config, generator.tokenizer)
    variants = _variants(config, asking, generator)
    length = generator.config.context_length
    prepared = prepare(config, selection, generator.tokenizer, length, asking, config.limit)
    others = [
        (label, prepare(config, selection, generator.tokenizer, length, each, config.limit)) for label, each in variants
    ]
    generator = _with_cache(config, generator, [prepared, *(each for _, each in others)])
    model_hash = _model_hash(config, model)
    store = Store(_store_folder(config), digest_data([model_hash, _precision(generator)]))
    try:
        results, errors, reused = _measure(name, selection, prepared, asking, generator, store, reporter)
        data = {
            "model": name,
            "folder": model,
            "model_hash": model_hash,
            "dtype": str(generator.decoder.dtype).removeprefix("torch."),
            "parameters": generator.config.parameter_count(),
            "limit": config.limit,
            "results": {task: result.figures() for task, result in results.items()},
            "tasks": {task: result.facts() for task, result in results.items()},
            "groups": _groups(selection, results),
            "group_tasks": dict(group_tasks(selection)),
            "errors": errors,
        }
        if others:
            data["variants"] = []
            for (label, each), (_, asked_by) in zip(others, variants, strict=True):
                found, failed, _ = _measure(name, selection, each, asked_by, generator, store, reporter)
                figures = {task: result.figures() for task, result in found.items()}
                data["variants"].append({"variant": label, "results": figures, "errors": failed})
        statistics = generator.statistics()
        data["cost"] = {
            "seconds": time.monotonic() - started,
            "tokens": statistics["prompt_tokens"] - statistics["cached_tokens"],
            "cached_tokens": statistics["cached_tokens"],
            "generated_tokens": statistics["generated_tokens"],
            "reused_items": reused,
            "peak_memory": _peak_memory(),
        }
    finally:
        store.close()
        generator.close()
    return data, [item for result in results.values() for item in result.items]


def _measure(
    model: str,
    selection: Selection,
    prepared: Prepared,
    asking: Asking,
    generator: Generator,
    store: Store,
    reporter: Reporter,
) -> tuple[dict[str, TaskResult], dict[str, str], int]:
    """Results by task, errors by task, and how many answers had been computed before."""
    results: dict[str, TaskResult] = {}
    errors = dict(prepared.errors)
    before = store.hits
    for name, asked in prepared.asked.items():
        task = selection.tasks[name]
        started = time.monotonic()
        requests = [request for each in asked for request in each.requests]
        try:
            with reporter.bar(f"{model}: {name}", len(requests), "requests") as bar:
                answers = answer_all(generator, task, requests, store, bar.advance)
            results[name] = task_result(
                model,
                task,
                asked,
                _by_document(asked, answers),
                num_fewshot=prepared.num_fewshot[name],
                is_chat=asking.chat_template is not None,
            )
            results[name].seconds = time.monotonic() - started
        except BottegaError as error:
            errors[name] = error.message
            reporter.say(f"{name} failed: {error.message}")
    return results, errors, store.hits - before


def _with_short_names(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures, those of a metric's first filter pipeline under the metric's own name too."""
    short = {name.partition(",")[0]: figure for name, figure in reversed(figures.items())}
    return {**figures, **{name: figure for name, figure in short.items() if name not in figures}}


def _by_document(asked: list[Asked], answers: list[Answer]) -> Mapping[int, list[Answer]]:
    each = iter(answers)
    return {place: [next(each) for _ in one.requests] for place, one in enumerate(asked)}


def _groups(selection: Selection, results: Mapping[str, TaskResult]) -> dict[str, Any]:
    members = group_tasks(selection)
    found = {
        name: group_figures(group, results, members[name])
        for name, group in selection.loaded.groups.items()
        if group.metrics
    }
    return {name: figures for name, figures in found.items() if figures}


def _generator(config: EvaluateModel, model: str) -> Generator:
    # A small cache, until it is known how long the requests are; pages that are never written take no memory.
    settings = OnEngine(model=model, cache_tokens=config.cache_tokens or CACHE_TOKENS)
    return Generator.load(
        model,
        adapters=config.adapter,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        settings=settings,
        max_batch=config.max_batch,
    )


def _with_cache(config: EvaluateModel, generator: Generator, prepared: list[Prepared]) -> Generator:
    """The same model with a cache that two of the longest requests fit into."""
    lengths = [
        len(request.ids) + (request.max_tokens if isinstance(request, Generation) else 0)
        for each in prepared
        for asked in each.asked.values()
        for one in asked
        for request in one.requests
    ]
    longest = max(lengths, default=0)
    given = config.cache_tokens
    if given is not None and given < longest:
        raise UserError(f"cache_tokens is {given}, and the longest request has {longest}", hint="Raise it.")
    if 2 * longest <= (given or CACHE_TOKENS) or given is not None:
        return generator
    settings = OnEngine(model="", cache_tokens=2 * longest)
    return Generator(generator.decoder, generator.tokenizer, settings=settings, max_batch=config.max_batch)


def _variants(config: EvaluateModel, asking: Asking, generator: Generator) -> Variants:
    """The other ways in which `--vary` asks."""
    if not config.vary:
        return []
    seeds = range(config.fewshot_seed + 1, config.fewshot_seed + 1 + config.vary)
    found: Variants = [(f"examples drawn with seed {seed}", replace(asking, fewshot_seed=seed)) for seed in seeds]
    if asking.chat_template is not None:
        found.append(("as plain text", replace(asking, chat_template=None)))
    elif generator.tokenizer.chat_template:
        found.append(("with the chat template", replace(asking, chat_template=chat_template(generator.tokenizer))))
    return found


def _names(models: tuple[str, ...]) -> list[str]:
    """The folders' own names where they tell the models apart, else as they were given."""
    short = [Path(model).name for model in models]
    return short if len(set(short)) == len(short) else list(models)


def _store_folder(config: EvaluateModel) -> Path | None:
    if not config.reuse:
        return None
    return config.store or workspace_path() / "evaluations"


def _model_hash(config: EvaluateModel, model: str) -> str:
    folders = [locate(model), *map(locate, config.adapter)]
    return digest_data([digest_path(folder, NOT_CONTENT) for folder in folders])


def _precision(generator: Generator) -> list[str]:
    """What decides an answer's last bits beside the model."""
    decoder = generator.decoder
    return [str(decoder.dtype), decoder.device.type, "kernels" if library.available() else "torch"]


def _peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
