"""What training made of a model, beside the model it came from: on general text, on held-out data, on tasks.

General text shows what was forgotten, held-out data what was learned; on both, the two models see the same tokens
(`evaluate.compare`). Where an adapter was trained, the start is the same decoder with the adapter switched off, so
there is no second copy; where the whole model was, the start is read again behind the last step. Tasks are asked of
the folders, as `bottega eval` asks them, and compared item by item as `bottega compare` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottega.checkpoint.hub import locate
from bottega.core.errors import BottegaError
from bottega.core.plan import Plan
from bottega.core.progress import Reporter
from bottega.core.verb import Context
from bottega.data.batches import Batches
from bottega.data.examples import Examples
from bottega.evaluate.analysis.compare import compare
from bottega.evaluate.compare import Comparison, compare_models
from bottega.evaluate.harness.run import measure_tasks
from bottega.evaluate.likelihood import Likelihood, Windowing, windowing_for
from bottega.evaluate.report.read import Measured, as_measured
from bottega.evaluate.texts import Document, read_documents
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.model.lora import as_started
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.train.artefacts import ADAPTER_FOLDER, MODEL_FOLDER
from bottega.train.comparison_text import general_text, task_settings
from bottega.train.config import Train
from bottega.train.rollout import evaluating

NAMES = ("trained", "start")


@dataclass(frozen=True)
class Held:
    """Documents of the kind that was trained on; `kept`: bool, (T,), the tokens that count."""

    documents: list[Document]
    kept: list[NDArray[np.bool_]]


class Start:
    """The decoder as it began (without its adapter, or with the one it went on with), to whoever reads logits.

    A pass and the logits of its rows are each taken so, as another reader may take the decoder's own in between.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.config = decoder, decoder.config

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.decoder.device

    def hidden(self, input_ids: Tensor, **more: Any) -> Tensor:
        """Hidden states, (1, T, H)."""
        with as_started(self.decoder):
            return self.decoder.hidden(input_ids, **more)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of rows, (R, V)."""
        with as_started(self.decoder):
            return self.decoder.logits(states)


def compare_texts(
    config: Train,
    model: Decoder,
    tokenizer: Tokenizer,
    heldout: Batches | Examples | None,
    tokens: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """Figures on `general` text and, where there are any, on `heldout` data; what could not be compared in `errors`."""
    start = start_of(config, model)
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}

    def general() -> dict[str, Any]:
        text, texts = general_text(config)
        documents = read_documents(tokenizer, texts, tokens)
        windowing = windowing_for(model, tokenizer, None, None)
        return {"text": text, **_figures(_compared(model, start, documents.each, windowing, "general text", reporter))}

    def own() -> dict[str, Any]:
        assert heldout is not None
        held = held_out(heldout, tokenizer, tokens)
        context = model.config.context_length
        windowing = Windowing(context, max(1, context // 2), None)
        return _figures(only(_compared(model, start, held.documents, windowing, "held-out data", reporter), held))

    wanted: dict[str, Callable[[], dict[str, Any]]] = {"general": general}
    if heldout is not None and heldout.spec.form != "prompts":  # there a prompt has no answer that could be scored
        wanted["heldout"] = own
    with evaluating(model):
        for name, measure in wanted.items():
            try:
                found[name] = measure()
            except BottegaError as error:
                errors[name] = error.message
                reporter.say(f"could not be compared: {error.message}")
    return found | ({"errors": errors} if errors else {})


def compare_tasks(plan: Plan, context: Context) -> dict[str, Any]:
    """The tasks of `config.tasks`, trained (A) against start (B), item by item; needs what the run wrote."""
    config = plan.config
    assert isinstance(config, Train) and config.model is not None
    store = context.work / "evaluations"  # answers that a run which is interrupted here need not ask for again
    trained = {"model": (str(context.out / MODEL_FOLDER),)}
    if config.adapter is not None:
        trained = {"model": (str(config.model),), "adapter": (str(context.out / ADAPTER_FOLDER),)}
    start = {"model": (str(config.model),)}
    if config.adapter is not None and config.adapter.start is not None:
        start["adapter"] = (str(config.adapter.start),)
    try:
        sides = [
            _measured(name, task_settings(config, **which, keep_going=True, store=store), context.reporter)
            for name, which in zip(NAMES, (trained, start), strict=True)
        ]
        return {"tasks": compare(*sides, seed=config.seed)}
    except BottegaError as error:
        context.reporter.say(f"the tasks could not be compared: {error.message}")
        return {"errors": {"tasks": error.message}}


def joined_findings(texts: dict[str, Any], tasks: dict[str, Any]) -> dict[str, Any]:
    """Both, and the errors of both."""
    errors = {**texts.get("errors", {}), **tasks.get("errors", {})}
    return {**texts, **tasks, **({"errors": errors} if errors else {})}


def start_of(config: Train, model: Decoder) -> Decoder:
    """The model that training began with, to be read beside `model`."""
    if config.adapter is not None:
        return cast(Decoder, Start(model))
    assert config.model is not None
    start = load_decoder(locate(config.model), device=model.device, dtype=model.dtype)
    return start.eval().requires_grad_(False)


def held_out(source: Batches | Examples, tokenizer: Tokenizer, tokens: int) -> Held:
    """About so many tokens of held-out data: of pairs the chosen answers, of judged answers the good ones.

    Only what is trained in training counts, and never a document's first token, which nothing predicts.
    """
    held = Held([], [])
    for ids, mask in _documents(source):
        kept = mask.copy()
        kept[:1] = False
        if not kept.any():
            continue
        content = tokenizer.decode(ids[kept].tolist(), skip_special=False).encode("utf-8")
        held.documents.append(Document(ids.tolist(), content))
        held.kept.append(kept)
        tokens -= len(ids)
        if tokens <= 0:
            break
    if not held.documents:
        raise BottegaError(f"{source.folder} holds nothing that could be scored")
    return held


def only(comparison: Comparison, held: Held) -> Comparison:
    """The comparison of the tokens that count; its documents begin without a prefix."""

    def part(likelihood: Likelihood) -> Likelihood:
        nats = [each[kept] for each, kept in zip(likelihood.nats, held.kept, strict=True)]
        return Likelihood(nats, likelihood.bytes, likelihood.windowing)

    kl = [each[kept[1:]] for each, kept in zip(comparison.kl, held.kept, strict=True)]
    agree = [each[kept[1:]] for each, kept in zip(comparison.agree, held.kept, strict=True)]
    return Comparison(part(comparison.model), part(comparison.reference), kl, agree)


def _documents(source: Batches | Examples) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """(tokens, mask) of each document."""
    if isinstance(source, Batches):
        for index in range(source.epoch_rows):
            row, start = source.rows(index, 1)[0], 0
            for length in row.lengths:
                yield row.tokens[start : start + length], row.mask[start : start + length]
                start += length
        return
    for i in range(source.count):
        if source.spec.form != "labelled" or source.row(i).get("label"):
            document = source.documents(i)[0]
            yield document.tokens, document.mask


def _compared(
    model: Decoder, start: Decoder, documents: Sequence[Document], windowing: Windowing, name: str, reporter: Reporter
) -> Comparison:
    with reporter.bar(f"comparing on {name}", sum(len(each.ids) for each in documents), "tokens") as bar:
        return compare_models(model, start, documents, windowing, progress=bar.advance)


def _figures(comparison: Comparison) -> dict[str, Any]:
    found = {**comparison.model.as_data(), **comparison.as_data()}
    wrong = [name for name, value in found.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise BottegaError(f"{wrong[0]} is {found[wrong[0]]}")
    return found


def _measured(name: str, config: Any, reporter: Reporter) -> Measured:
    data, items = measure_tasks(config, reporter)
    return replace(as_measured(data, items)[0], name=name)
