"""Rollouts from the live decoder against rollouts that pack the weights first: tokens per second, packing included.

    python benchmarks/rollouts.py [--quick] [--threads N]

Random models of 5M and 110M with a LoRA adapter (r 8, all linear layers) and without, in float32; four prompts of 48
tokens, eight answers each. Times are the process's own CPU time over its threads, so that a busy machine counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bottega.checkpoint.config import ModelConfig
from bottega.generate.settings import Sampling
from bottega.model.adapter_config import AdapterSettings
from bottega.model.decoder import Decoder
from bottega.model.lora import add_adapter
from bottega.train.rollout import Rollouts, packed_copy

SIZES = {"5M": (192, 512, 8, 6, 3, 8192), "110M": (768, 2048, 14, 12, 4, 16000)}
PROMPTS = [[5 + (7 * prompt + place) % 300 for place in range(48)] for prompt in range(4)]
ANSWERS = 8


@dataclass
class Bytes:
    """As much of a tokenizer as rollouts ask for: token i is the byte i modulo 256."""

    family: str = "byte_level"
    stop_ids: frozenset[int] = frozenset()
    special_ids: frozenset[int] = frozenset()

    def token_bytes(self, token: int) -> bytes:
        """The byte."""
        return bytes([token % 256])

    def token_text(self, token: int) -> str:
        """The byte, for people."""
        return chr(token % 256)


def decoder_of(size: str, adapter: bool) -> Decoder:
    """A random one, in training."""
    width, wide, layers, heads, kv_heads, vocabulary = SIZES[size]
    config = ModelConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=wide, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=width // heads, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0)).train()
    if adapter:
        add_adapter(decoder, AdapterSettings(r=8), torch.Generator().manual_seed(1))
    return decoder


def seconds(decoder: Decoder, packed: bool, tokens: int) -> float:
    """CPU time of a rollout of so many tokens an answer, after a short one that warms up."""
    rollouts = Rollouts(decoder, Bytes(), packed=packed)  # pyright: ignore[reportArgumentType]
    rollouts.sample(PROMPTS[:1], 1, Sampling(max_new_tokens=2), 0)
    started = time.process_time()
    rollouts.sample(PROMPTS, ANSWERS, Sampling(max_new_tokens=tokens), 1)
    spent = time.process_time() - started
    rollouts.close()
    return spent / torch.get_num_threads()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small model, and short answers")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    tokens = 16 if given.quick else 64
    print(f"{len(PROMPTS)} prompts, {ANSWERS} answers of {tokens} tokens each, {given.threads} threads")
    for size in ["5M"] if given.quick else list(SIZES):
        for adapter in (False, True):
            decoder = decoder_of(size, adapter)
            count = len(PROMPTS) * ANSWERS * tokens
            live, packed = seconds(decoder, False, tokens), seconds(decoder, True, tokens)
            started = time.process_time()
            packed_copy(decoder)
            packing = (time.process_time() - started) / given.threads
            print(
                f"{size:>5} {'LoRA' if adapter else 'full':>5}: live {count / live:7.0f} tokens/s, packed "
                f"{count / packed:7.0f} tokens/s ({packing:.2f} s of it packing), ratio {live / packed:.2f}; "
                f"packing is paid after {packing / (live - packed + packing) * count:.0f} tokens",
                flush=True,
            )


if __name__ == "__main__":
    main()
