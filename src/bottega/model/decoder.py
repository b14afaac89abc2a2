"""The decoder: a language model of the Llama architecture (Touvron et al. 2023, arXiv:2302.13971).

Read top down: `Decoder` embeds tokens, passes them through `Block`s and turns the last hidden
states into logits. Attention, rotary positions, feed-forward, norm and cache have a file each.
Parameter names are Hugging Face's, so `state_dict()` is what `model.safetensors` holds.

Shapes: B batch, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.core.errors import UserError
from bottega.model.attention import Attention
from bottega.model.cache import KVCache
from bottega.model.feed_forward import FeedForward
from bottega.model.norm import RMSNorm
from bottega.model.rope import rotation_table


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None, segments: Sequence[int] | None
    ) -> Tensor:
        """(B, T, H) → (B, T, H)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache, segments)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Everything below the head; it exists because Hugging Face's names begin with `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A causal language model.

    Weights are drawn from N(0, initializer_range²), those of the projections back into the
    residual stream divided by sqrt(2 · layers) (GPT-2's rule), norms are ones, biases zeros.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._rotation: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Decoder:
        """Draw all weights anew; returns itself."""
        residual_scale = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            else:
                scale = residual_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                parameter.normal_(0.0, self.config.initializer_range * scale, generator=generator)
        return self

    def hidden(
        self, input_ids: Tensor, *, cache: KVCache | None = None, segments: Sequence[int] | None = None
    ) -> Tensor:
        """Normalised hidden states behind the last layer, (B, T, H).

        Args:
            input_ids: (B, T) int64.
            cache: the tokens stand behind those in the cache and are added to it.
            segments: lengths of the documents packed into one row (B = 1, they sum to T);
                attention does not cross from one to another and positions restart at each.
        """
        batch, length = input_ids.shape
        if segments is not None and (batch != 1 or sum(segments) != length):
            raise ValueError(f"segments sum to {sum(segments)}, input_ids are {batch} × {length}")
        past = cache.length if cache is not None else 0
        if cache is not None:
            cache.require_room(length)
        x = self.model.embed_tokens(input_ids)
        cos, sin = self._angles(past, length, segments, x)
        for layer in self.model.layers:
            x = layer(x, cos, sin, cache, segments)
        if cache is not None:
            cache.advance(length)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., H) → (..., V)."""
        return self.lm_head(hidden)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None, segments: Sequence[int] | None = None) -> Tensor:
        """Logits of the next token at every position, (B, T, V)."""
        return self.logits(self.hidden(input_ids, cache=cache, segments=segments))

    def _angles(self, past: int, length: int, segments: Sequence[int] | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin for the tokens at hand, float32, (T, head_dim) each."""
        needed = max(segments) if segments else past + length
        limit = self.config.max_position_embeddings
        if needed > limit:
            raise UserError(f"{needed} tokens do not fit the model's context of {limit}")
        if self._rotation is None or self._rotation[0].device != x.device:
            cos, sin = rotation_table(self.config, limit)
            self._rotation = cos.to(x.device), sin.to(x.device)
        if segments:
            parts = [table[:count] for table in self._rotation for count in segments]
            middle = len(segments)
            cos, sin = torch.cat(parts[:middle]), torch.cat(parts[middle:])
        else:
            cos, sin = (table[past : past + length] for table in self._rotation)
        return cos, sin
