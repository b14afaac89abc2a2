"""The likelihood of a text under a model: nats per token, perplexity, bits per byte.

Definitions. Every token is scored exactly once, −ln p(token | those before it), in windows of at
most `context` tokens: a document's first window begins with its prefix (the tokenizer's BOS, else
its EOS, so that the first token is scored too), each further one ends `stride` tokens later
and scores only those. So a token of a long document sees at least context − stride before it.

    perplexity    = exp(Σ nats / tokens)            of one tokenizer; compare only with its own kind
    bits per byte = Σ nats / (ln 2 · UTF-8 bytes)   of the text itself, whatever the tokenizer

Tokens and bytes are those of the documents, not of the prefixes. Without BOS and EOS the
first token of a document is charged ln(vocabulary size), a code that anybody could use.

Against lm-eval (0.4.13): with stride = context these are the windows of its `loglikelihood_rolling`;
the default stride context/2 gives more context and lower figures, and both are stated with the
result. Its byte_perplexity is 2^(bits per byte); its `perplexity` (of LAMBADA) is a mean over documents,
ours over tokens. Its log-softmax runs in the model's precision by default, which moves a
score in bfloat16 by up to a nat per answer; ours upcasts the gathered rows to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottega.core.errors import BottegaError, UserError
from bottega.evaluate.config import DEFAULT_CONTEXT
from bottega.evaluate.statistics import Estimate, ratio_interval
from bottega.evaluate.texts import Document
from bottega.model.decoder import Decoder
from bottega.tokenizer.tokenizer import Tokenizer

# Tokens that pass through the model at once.
BATCH_TOKENS = 4096
# Logits that stand in memory at once (float32: 16 MiB).
LOGITS_AT_ONCE = 1 << 22

Progress = Callable[[int], None]
Nats = NDArray[np.float64]


@dataclass(frozen=True)
class Windowing:
    """How documents are cut into windows. `prefix` is the token before a document, None if there is none."""

    context: int
    stride: int
    prefix: int | None

    def __post_init__(self) -> None:
        """Raise UserError where tokens would be skipped."""
        if not 1 <= self.stride <= self.context:
            raise UserError(f"stride {self.stride} must lie between 1 and the context of {self.context}")


@dataclass(frozen=True)
class Window:
    """Tokens `first` to `last` of document `document` are scored; `inputs` ends right before the last of them."""

    document: int
    inputs: list[int]
    first: int
    last: int


@dataclass(frozen=True)
class Likelihood:
    """Nats of every token of every document, and what they amount to."""

    nats: list[Nats]
    bytes: list[int]
    windowing: Windowing

    @property
    def tokens(self) -> int:
        """Tokens scored."""
        return sum(len(each) for each in self.nats)

    @property
    def perplexity(self) -> float:
        """exp of the mean nats per token."""
        return math.exp(sum(float(each.sum()) for each in self.nats) / self.tokens)

    @property
    def bits_per_byte(self) -> Estimate:
        """Bits per UTF-8 byte; its interval takes documents as the independent units."""
        return ratio_interval([float(each.sum()) / math.log(2) for each in self.nats], self.bytes)

    def as_data(self) -> dict[str, Any]:
        """The figures with everything that they depend on."""
        bits = self.bits_per_byte
        return {
            "bits_per_byte": bits.value,
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "bytes": sum(self.bytes),
            "documents": len(self.nats),
            "bits_per_byte_interval": None if bits.low is None else [bits.low, bits.high],
            "nats_per_token": math.log(self.perplexity),
            "context": self.windowing.context,
            "stride": self.windowing.stride,
            "prefix": self.windowing.prefix,
        }


def windowing_for(decoder: Decoder, tokenizer: Tokenizer, context: int | None, stride: int | None) -> Windowing:
    """The windows for a model: its own context (at most DEFAULT_CONTEXT), stride half of it, unless given."""
    longest = decoder.config.context_length
    if context is not None and context > longest:
        raise UserError(f"a context of {context} tokens is more than the model's {longest}")
    context = context or min(longest, DEFAULT_CONTEXT)
    prefix = tokenizer.document_prefix()
    token = prefix[-1] if prefix else tokenizer.eos_id
    return Windowing(context, stride or max(1, context // 2), token)


def spans(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, first, last) of the windows over `length` targets: inputs from start, targets first to last."""
    first, last = 0, min(context, length)
    while first < length:
        yield max(0, last - context), first, last
        first, last = last, min(last + stride, length)


def windows(documents: Sequence[Document], windowing: Windowing) -> Iterator[Window]:
    """The windows of all documents, in order."""
    for index, document in enumerate(documents):
        skipped = 0 if windowing.prefix is not None else 1
        sequence = document.ids if windowing.prefix is None else [windowing.prefix, *document.ids]
        for start, first, last in spans(len(sequence) - 1, windowing.context, windowing.stride):
            yield Window(index, sequence[start:last], first + skipped, last + skipped)


def packs(each: Iterator[Window], batch_tokens: int = BATCH_TOKENS) -> Iterator[list[Window]]:
    """Neighbouring windows together, up to `batch_tokens` tokens (at least one window)."""
    pack: list[Window] = []
    size = 0
    for window in each:
        if pack and size + len(window.inputs) > batch_tokens:
            yield pack
            pack, size = [], 0
        pack.append(window)
        size += len(window.inputs)
    if pack:
        yield pack


def scored_rows(decoder: Decoder, pack: Sequence[Window]) -> Tensor:
    """Hidden states (R, H) behind which the pack's targets stand, in order; windows do not see each other."""
    device = decoder.device
    ids = torch.tensor([[token for window in pack for token in window.inputs]], device=device)
    keep, start = [], 0
    for window in pack:
        start += len(window.inputs)
        keep.append(torch.arange(start - (window.last - window.first), start, device=device))
    return decoder.hidden(ids, segments=[len(window.inputs) for window in pack])[0, torch.cat(keep)]


def pack_targets(pack: Sequence[Window], documents: Sequence[Document]) -> Tensor:
    """Token ids (R,) that the rows of `scored_rows` predict."""
    return torch.tensor([t for window in pack for t in documents[window.document].ids[window.first : window.last]])


def logit_chunks(decoder: Decoder, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits of a few rows at a time, (r, V), in the model's precision: never all of (R, V)."""
    step = max(1, LOGITS_AT_ONCE // decoder.config.vocab_size)
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        yield part, decoder.logits(rows[part])


def nats_of(logits: Tensor, targets: Tensor) -> Tensor:
    """−ln softmax(logits)[target] of each row, in float32 (float64 if the logits are): (..., V), (...) → (...)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    picked = wide.gather(-1, targets.to(wide.device).unsqueeze(-1)).squeeze(-1)
    return wide.logsumexp(-1) - picked


@torch.inference_mode()
def score_documents(
    decoder: Decoder,
    documents: Sequence[Document],
    windowing: Windowing,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Likelihood:
    """Nats of every token of `documents`. `progress` is told how many more tokens are scored.

    Raises UserError for tokens outside the model's vocabulary, BottegaError where the
    model's output is not finite.
    """
    require_vocabulary(decoder, documents)
    nats = empty_scores(decoder, documents, windowing)
    for pack in packs(windows(documents, windowing), batch_tokens):
        rows, targets = scored_rows(decoder, pack), pack_targets(pack, documents)
        scores = [nats_of(logits, targets[part]).cpu().double() for part, logits in logit_chunks(decoder, rows)]
        scatter(torch.cat(scores).numpy(), pack, nats)
        if progress:
            progress(len(targets))
    require_finite(nats, "the model")
    return Likelihood(nats, [len(document.content) for document in documents], windowing)


def empty_scores(decoder: Decoder, documents: Sequence[Document], windowing: Windowing) -> list[Nats]:
    """Room for every token's nats, with what an unpredictable first token costs already in it."""
    nats = [np.full(len(document.ids), np.nan) for document in documents]
    if windowing.prefix is None:
        for each in nats:
            each[:1] = math.log(decoder.config.vocab_size)
    return nats


def scatter(values: NDArray[Any], pack: Sequence[Window], into: list[NDArray[Any]]) -> None:
    """Write the values of a pack's rows to their documents' places."""
    start = 0
    for window in pack:
        end = start + window.last - window.first
        into[window.document][window.first : window.last] = values[start:end]
        start = end


def require_vocabulary(decoder: Decoder, documents: Sequence[Document]) -> None:
    """Raise UserError if a token is none of the model's."""
    if not any(document.ids for document in documents):
        raise UserError("there is no text to score: all documents are empty")
    largest = max(max(document.ids, default=0) for document in documents)
    if largest >= decoder.config.vocab_size:
        raise UserError(
            f"the tokenizer gives token {largest}, the model has a vocabulary of {decoder.config.vocab_size}",
            hint="The tokenizer does not belong to this model.",
        )


def require_finite(nats: Sequence[Nats], whose: str) -> None:
    """Raise BottegaError at the first score that is not a number: it must not become a figure."""
    for index, each in enumerate(nats):
        bad = np.flatnonzero(~np.isfinite(each))
        if bad.size:
            raise BottegaError(
                f"{whose} gives no finite probability to token {int(bad[0])} of document {index}",
                hint="Its weights may be damaged; in float16, try --dtype float32.",
            )
