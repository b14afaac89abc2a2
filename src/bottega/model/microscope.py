"""Looking into a pass of the decoder: attention weights, the residual stream, and the logit lens.

The logit lens (nostalgebraist 2020) reads the residual stream behind each layer as if it were the last: normalise,
project with the head. An induction head (Olsson et al. 2022, arXiv:2209.11895) looks, from a token that occurred
before, at the token that followed it then; a head that copies looks at the very token that comes next. For models
whose layers see all tokens before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bottega.core.errors import UserError
from bottega.model.attention import Attention
from bottega.model.decoder import Decoder


@dataclass(frozen=True)
class Look:
    """One text's pass.

    Attributes:
        residual: (L + 1, T, H) the stream before the first layer and behind each.
        attention: (L, heads, T, T) how much token i, the row, looks at token j, the column; rows sum to 1.
        logits: (T, V) of the next token.
    """

    residual: Tensor
    attention: Tensor
    logits: Tensor


@torch.no_grad()
def look(decoder: Decoder, input_ids: Tensor) -> Look:
    """Pass `input_ids` (T,) through and keep what is inside; raises UserError for windows, caps and biases."""
    layers = list(decoder.model.layers)
    attentions = [module for module in decoder.modules() if isinstance(module, Attention)]
    if not all(each.rule.sees_all(len(input_ids)) for each in attentions):
        raise UserError("this model's layers do not simply see all tokens before them; its attention cannot be shown")
    streams: list[Tensor] = []
    weights: list[Tensor] = []
    hooks = [layers[0].register_forward_pre_hook(lambda _, given: streams.append(given[0][0]))]
    hooks += [layer.register_forward_hook(lambda _module, _given, out: streams.append(out[0])) for layer in layers]
    hooks += [each.register_forward_hook(partial(_note, weights)) for each in attentions]
    try:
        logits = decoder(input_ids.unsqueeze(0))[0]
    finally:
        for hook in hooks:
            hook.remove()
    return Look(torch.stack(streams), torch.stack(weights), logits)


def _note(weights: list[Tensor], attention: nn.Module, given: tuple[Any, ...], _out: Tensor) -> None:
    """Compute the weights that the fused attention does not give: softmax of scaled, masked products."""
    assert isinstance(attention, Attention)
    x, sequences = given
    q, k, _ = attention.project(x, sequences.angles.get(attention.rope or ""))
    k = k.repeat_interleave(attention.heads // attention.kv_heads, dim=2)
    scores = torch.einsum("qhd,khd->hqk", q[0], k[0]).float() * attention.rule.scale
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    weights.append(scores.masked_fill(future, -torch.inf).softmax(-1))


@torch.no_grad()
def logit_lens(decoder: Decoder, residual: Tensor) -> Tensor:
    """(L + 1, T, H) → (L + 1, T, V): what each layer's stream would say as the last one; the last is the model's."""
    return decoder.logits(decoder.model.norm(residual))


def induction_scores(attention: Tensor, input_ids: Tensor) -> Tensor:
    """(L, heads): the mean weight on the token behind the last earlier occurrence, over tokens that occurred before."""
    ids = input_ids.tolist()
    rows, columns = [], []
    for place, token in enumerate(ids):
        earlier = next((i for i in range(place - 1, -1, -1) if ids[i] == token), None)
        if earlier is not None and earlier + 1 < place:
            rows.append(place)
            columns.append(earlier + 1)
    if not rows:
        raise UserError("no token of this text occurs twice")
    return attention[:, :, rows, columns].mean(-1)


def copy_scores(attention: Tensor, input_ids: Tensor, among: Tensor | None = None) -> Tensor:
    """(L, heads): the mean weight on earlier occurrences of the token that comes next, where there are any.

    `among` (V,) says which tokens count as the next one (default: all).
    """
    same = (input_ids[1:, None] == input_ids[None, :]).tril()  # (T − 1, T): is token j the one that follows token i?
    places = same.any(1) if among is None else same.any(1) & among[input_ids[1:]]
    if not places.any():
        raise UserError("no token of this text occurs twice")
    return (attention[:, :, :-1] * same).sum(-1)[:, :, places].mean(-1)
