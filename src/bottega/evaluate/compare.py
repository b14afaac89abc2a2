"""Two models on the same tokens: perplexities, KL divergence, top-1 agreement.

KL(reference ‖ model) = Σ_v p_ref(v) · (ln p_ref(v) − ln p_model(v)), in nats, at every scored token; its
mean says what a change costs on the whole, its 99th percentile how badly the worst tokens fare.
Top-1 agreement is the share of tokens at which both models' likeliest next token is the same one.
All three need one vocabulary. Between different tokenizers only bits per byte can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bottega.core.errors import UserError
from bottega.evaluate.likelihood import (
    BATCH_TOKENS,
    Likelihood,
    Progress,
    Windowing,
    empty_scores,
    logit_chunks,
    nats_of,
    pack_targets,
    packs,
    require_finite,
    require_vocabulary,
    scatter,
    scored_rows,
    windows,
)
from bottega.evaluate.statistics import ratio_interval, wilson
from bottega.evaluate.texts import Document
from bottega.model.decoder import Decoder

NEED_ONE_VOCABULARY = ("kl_mean", "kl_p99", "top1_agreement")


@dataclass(frozen=True)
class Comparison:
    """Both models' likelihoods of the same documents; KL (nats) and agreement of every predicted token."""

    model: Likelihood
    reference: Likelihood
    kl: list[NDArray[np.float64]]
    agree: list[NDArray[np.float64]]

    def as_data(self) -> dict[str, Any]:
        """The figures with their intervals."""
        kl, agree = np.concatenate(self.kl), np.concatenate(self.agree)
        mean = ratio_interval([each.sum() for each in self.kl], [len(each) for each in self.kl])
        top = wilson(int(agree.sum()), len(agree))
        return {
            "kl_mean": mean.value,
            "kl_p99": float(np.quantile(kl, 0.99)),
            "top1_agreement": top.value,
            "kl_max": float(kl.max()),
            "kl_mean_interval": None if mean.low is None else [mean.low, mean.high],
            "top1_agreement_interval": [top.low, top.high],
            "compared_tokens": len(kl),
            **difference(self.model, self.reference),
        }


def difference(model: Likelihood, reference: Likelihood) -> dict[str, Any]:
    """The reference's own figures, and by how much the model's bits per byte differ, document by document."""
    extra = [(a.sum() - b.sum()) / math.log(2) for a, b in zip(model.nats, reference.nats, strict=True)]
    paired = ratio_interval(extra, model.bytes)
    return {
        "reference": reference.as_data(),
        "bits_per_byte_difference": paired.value,
        "bits_per_byte_difference_interval": None if paired.low is None else [paired.low, paired.high],
    }


def require_one_vocabulary(model: Decoder, reference: Decoder) -> None:
    """Raise UserError unless the two models' logits are over the same tokens."""
    if model.config.vocab_size != reference.config.vocab_size:
        raise UserError(
            f"the models have vocabularies of {model.config.vocab_size} and {reference.config.vocab_size}: "
            f"{', '.join(NEED_ONE_VOCABULARY)} are not defined between them",
            hint="Bits per byte can be compared: evaluate each model by itself on the same text.",
        )


@torch.inference_mode()
def compare_models(
    model: Decoder,
    reference: Decoder,
    documents: Sequence[Document],
    windowing: Windowing,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> Comparison:
    """Both models over the same windows, a few rows of logits at a time; errors as `score_documents`."""
    require_one_vocabulary(model, reference)
    require_vocabulary(model, documents)
    scores = [empty_scores(decoder, documents, windowing) for decoder in (model, reference)]
    kl = [np.full(len(document.ids), np.nan) for document in documents]
    agree = [np.full(len(document.ids), np.nan) for document in documents]
    for pack in packs(windows(documents, windowing), batch_tokens):
        targets = pack_targets(pack, documents)
        pairs = zip(
            logit_chunks(model, scored_rows(model, pack)),
            logit_chunks(reference, scored_rows(reference, pack)),
            strict=True,
        )
        found = [_compare_rows(logits, others, targets[part]) for (part, logits), (_, others) in pairs]
        columns = torch.cat(found, dim=1).numpy()
        for values, into in zip(columns, (*scores, kl, agree), strict=True):
            scatter(values, pack, into)
        if progress:
            progress(len(targets))
    require_finite(scores[0], "the model")
    require_finite(scores[1], "the reference")
    if windowing.prefix is None:  # neither model predicts a document's first token
        kl, agree = [each[1:] for each in kl], [each[1:] for each in agree]
    require_finite(kl, "the comparison")
    sizes = [len(document.content) for document in documents]
    return Comparison(Likelihood(scores[0], sizes, windowing), Likelihood(scores[1], sizes, windowing), kl, agree)


def _compare_rows(logits: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    """Rows of nats, reference's nats, KL and agreement: (r, V), (r, V), (r,) → (4, r) float64."""
    # KL is a small difference of large sums: float64, except where the device has none.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    ours, theirs = logits.to(wide).log_softmax(-1), others.to(wide).log_softmax(-1)
    kl = (theirs.exp() * (theirs - ours)).sum(-1).clamp_min(0)
    agree = (logits.argmax(-1) == others.argmax(-1)).to(wide)
    return torch.stack([nats_of(logits, targets).to(wide), nats_of(others, targets).to(wide), kl, agree]).cpu().double()
