"""The decoder: a causal language model, Llama's architecture (Touvron et al. 2023, arXiv:2302.13971) with switches.

Read top down: `Decoder` embeds tokens, passes them through `Block`s and turns the last hidden
states into logits. Attention, positions, feed-forward, experts, norm and cache have a file each; what tells
the families apart is `config.switches`. Parameter names are Hugging Face's for Llama, so for the families that
grew from it `state_dict()` is what `model.safetensors` holds (`checkpoint.layout` knows the others).

Shapes: B batch, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.model.attention import Attention, Sequences
from bottega.model.cache import KVCache
from bottega.model.experts import MixtureOfExperts
from bottega.model.feed_forward import FeedForward, PlainFeedForward
from bottega.model.linear import Embedding, Linear
from bottega.model.norm import LayerNorm, OffsetRMSNorm, RMSNorm, make_norm
from bottega.model.paged import Step
from bottega.model.rope import Rotation


class Block(nn.Module):
    """One layer: attention, then feed-forward; each is normalised before it, after it, or both, and added back."""

    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module
    pre_feedforward_layernorm: nn.Module
    post_feedforward_layernorm: nn.Module

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        switches = config.switches
        self.placement, self.parallel = switches.placement, switches.parallel
        names = ["post_attention_layernorm"]
        names += ["input_layernorm"] if self.placement != "after" else []
        names += ["post_feedforward_layernorm"] if self.placement != "before" else []
        names += ["pre_feedforward_layernorm"] if self.placement == "both" else []
        for name in names:
            self.add_module(name, make_norm(switches.norm, config.hidden_size, config.rms_norm_eps))
        self.self_attn = Attention(config, layer)
        self.mlp = _feed_forward(config, layer)

    def forward(self, x: Tensor, sequences: Sequences) -> Tensor:
        """(B, T, H) → (B, T, H)."""
        if self.placement == "after":
            x = x + self.post_attention_layernorm(self.self_attn(x, sequences))
            return x + self.post_feedforward_layernorm(self.mlp(x))
        attended = self.self_attn(self.input_layernorm(x), sequences)
        if self.placement == "both":
            x = x + self.post_attention_layernorm(attended)
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        if self.parallel:
            return x + attended + self.mlp(self.post_attention_layernorm(x))
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x))


def _feed_forward(config: ModelConfig, layer: int) -> nn.Module:
    experts = config.switches.experts
    if experts is not None and experts.sparse[layer]:
        return MixtureOfExperts(config, experts)
    return FeedForward(config) if config.switches.gated else PlainFeedForward(config)


class Backbone(nn.Module):
    """Everything below the head; it exists because Hugging Face's names begin with `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        switches, size = config.switches, config.hidden_size
        self.embed_tokens = Embedding(config.vocab_size, size)
        self.embed_positions = (
            Embedding(config.max_position_embeddings, size) if switches.positions == "learned" else None
        )
        self.embed_norm = make_norm(switches.norm, size, config.rms_norm_eps) if switches.embedding_norm else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(switches.norm, size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A causal language model.

    A new one has no weights yet: `initialise` draws them, `model.load` reads them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.activations: torch.dtype | None = None
        """Precision to compute in, where it is not that of the weights (`inference.prepare_for_inference`)."""
        self._rotations = {kind: Rotation(rope) for kind, rope in config.switches.ropes.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The precision of hidden states, keys and values."""
        return self.activations or self.model.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Decoder:
        """Draw all weights; returns itself.

        They are from N(0, initializer_range²), those of the projections back into the residual stream divided
        by sqrt(2 · layers) (GPT-2's rule); norms are neutral, biases zeros.
        """
        residual_scale = (2 * self.config.num_hidden_layers) ** -0.5
        norms = [module for module in self.modules() if isinstance(module, RMSNorm | LayerNorm)]
        neutral = {id(norm.weight): 0.0 if isinstance(norm, OffsetRMSNorm) else 1.0 for norm in norms}
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(neutral.get(id(parameter), 0.0))
            else:
                scale = residual_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                parameter.normal_(0.0, self.config.initializer_range * scale, generator=generator)
        return self

    def hidden(
        self,
        input_ids: Tensor,
        *,
        cache: KVCache | None = None,
        segments: Sequence[int] | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Normalised hidden states behind the last layer, (B, T, H).

        Args:
            input_ids: (B, T) int64.
            cache: the tokens stand behind those in the cache and are added to it.
            segments: lengths of the documents packed into one row (B = 1, they sum to T);
                attention does not cross from one to another and positions restart at each.
            padding: (B,) tokens at the beginning of each row that are none of the text's; a cache remembers it.
        """
        batch, length = input_ids.shape
        if segments is not None and (batch != 1 or sum(segments) != length):
            raise ValueError(f"segments sum to {sum(segments)}, input_ids are {batch} × {length}")
        past = cache.length if cache is not None else 0
        if cache is not None:
            cache.require_room(length)
            cache.padding = padding = cache.padding if past else padding
        places = self._places(past, length, segments, padding, input_ids.device)
        x = self._embed(input_ids, places)
        # A cache fixes the length for positions that adapt to it: no key may change once it is stored.
        reach = max(segments) if segments else past + length
        angles = self._angles(places, reach, max(reach, cache.capacity if cache else 0), x.device)
        sequences = Sequences(angles, cache, segments, padding)
        for layer in self.model.layers:
            x = layer(x, sequences)
        if cache is not None:
            cache.advance(length)
        return self.model.norm(x)

    def advance(self, step: Step) -> Tensor:
        """Normalised hidden states of a step's tokens, (N, H); their keys and values are stored in its cache."""
        x = self._embed(step.ids.unsqueeze(0), step.positions)
        sequences = Sequences(self._step_angles(step), step=step)
        for layer in self.model.layers:
            x = layer(x, sequences)
        return self.model.norm(x)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) → (..., V)."""
        logits, cap = self.lm_head(hidden), self.config.switches.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def forward(
        self,
        input_ids: Tensor,
        cache: KVCache | None = None,
        segments: Sequence[int] | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token at every position, (B, T, V)."""
        return self.logits(self.hidden(input_ids, cache=cache, segments=segments, padding=padding))

    def _places(
        self, past: int, length: int, segments: Sequence[int] | None, padding: Tensor | None, device: torch.device
    ) -> slice | Tensor:
        """The position of every token in its text: a slice where they follow each other, else (T,) or (B, T)."""
        needed = max(segments) if segments else past + length
        limit = self.config.context_length
        if needed > limit and self.config.switches.positions != "alibi":
            raise UserError(f"{needed} tokens do not fit the model's context of {limit}")
        if segments:
            return torch.cat([torch.arange(count, device=device) for count in segments])
        if padding is None:
            return slice(past, past + length)
        return (torch.arange(past, past + length, device=device) - padding.to(device).unsqueeze(1)).clamp_min(0)

    def _embed(self, input_ids: Tensor, places: slice | Tensor) -> Tensor:
        """(B, T) → (B, T, H)."""
        x = self.model.embed_tokens(input_ids).to(self.dtype)
        if self.config.switches.embedding_scale is not None:
            x = x * torch.tensor(self.config.switches.embedding_scale, dtype=x.dtype, device=x.device)
        if self.model.embed_positions is not None:
            x = x + self.model.embed_positions.weight[places]
        return x if self.model.embed_norm is None else self.model.embed_norm(x)

    def _angles(
        self, places: slice | Tensor, reach: int, length: int, device: torch.device
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """cos and sin of the tokens at hand by kind, float32, (T, dim) or (B, T, dim) each."""
        found = {}
        for kind, rotation in self._rotations.items():
            cos, sin = rotation.table(reach, length, device)
            found[kind] = cos[places], sin[places]
        return found

    def regime(self, capacity: int) -> tuple[int, ...]:
        """Sequences that may come to have so many tokens have the same angles if they have the same regime."""
        return tuple(rotation.regime(capacity) for rotation in self._rotations.values())

    def _step_angles(self, step: Step) -> dict[str, tuple[Tensor, Tensor]]:
        """`_angles` of a step's tokens; where they adapt to the length of a text, each sequence has its own."""
        if not any(rotation.adapts for rotation in self._rotations.values()):
            return self._angles(step.positions, max(step.capacities), 0, step.positions.device)
        parts = [
            self._angles(positions, capacity, capacity, positions.device)
            for positions, capacity in zip(step.positions.split(step.counts), step.capacities, strict=True)
        ]
        return {
            kind: (torch.cat([part[kind][0] for part in parts]), torch.cat([part[kind][1] for part in parts]))
            for kind in self._rotations
        }
