"""Decoding tokens per second, against `transformers.generate`, for one prompt and for eight at once.

Greedy, 32 prompt tokens, no stop token. Our side is `Generator.complete` and `complete_many`, which
also make text and log-probabilities; the peer's is `generate`, which returns ids only. In float32 the ids are
compared first. The floor is the weights' bytes over the measured bandwidth of memory; small models
live in the processor's caches, which are faster than that.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import alternate
from bottega.checkpoint.config import ModelConfig

PROMPT_TOKENS = 32
# layers, width, heads, key heads, feed-forward, vocabulary, new tokens
SHAPES = {
    "tiny": (2, 128, 2, 1, 352, 2048, 128),
    "small": (4, 256, 4, 2, 704, 4096, 128),
    "110M": (12, 768, 12, 4, 2048, 32000, 24),
}
GOAL = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small model only, fewer tokens")
    parser.add_argument("--model", type=Path, action="append", help="a model folder, instead of random models")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), action="append", help="default: float32")
    parser.add_argument("--repeat", type=int, default=5)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side == "ours" else peer)(arguments.settings)
        return
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    names = ["ours", "peer"] if alternate.peer_installed() else ["ours"]
    repeat, rows = 3 if arguments.quick else arguments.repeat, []
    with tempfile.TemporaryDirectory() as scratch:
        shapes = ["small"] if arguments.quick else list(SHAPES)
        folders = [(path, path.name, 64) for path in arguments.model or ()] or [
            (write_model(Path(scratch) / name, name), name, SHAPES[name][-1]) for name in shapes
        ]
        for (folder, name, tokens), dtype in itertools.product(folders, arguments.dtype or ["float32"]):
            settings = {"folder": str(folder), "dtype": dtype, **machine}
            settings["tokens"] = min(tokens, 32) if arguments.quick else tokens
            rows += compare(name, settings, names, repeat, rates.memory)
    header = ("model", "precision", "prompts", "ours, tok/s", "peer, tok/s", "ratio", "goal", "floor, tok/s")
    alternate.print_table(header, rows)


def compare(name: str, settings: dict[str, Any], names: list[str], repeat: int, bandwidth: float) -> list[list[str]]:
    """Two rows of the table: one prompt, eight prompts."""
    others = alternate.OtherWork()
    config = ModelConfig.read(Path(settings["folder"]))
    sides = [alternate.Side(__file__, side, settings) for side in names]
    rows = []
    for count in (1, 8):
        answers = alternate.alternate(sides, [count] * (repeat + 1), warm_up=1)
        ids = [side[0]["ids"] for side in answers]
        if settings["dtype"] == "float32" and len(ids) > 1 and ids[0] != ids[1]:
            raise SystemExit(f"{name}: the two sides do not generate the same tokens")
        speeds = [count * settings["tokens"] / statistics.median(a["seconds"] for a in side) for side in answers]
        width = 2 if settings["dtype"] == "bfloat16" else 4
        embedding = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size  # only looked up
        floor = count * bandwidth / (width * (config.parameter_count() - embedding))
        row = [name, settings["dtype"], str(count), f"{speeds[0]:,.0f}"]
        row += [f"{speeds[1]:,.0f}", f"**{speeds[0] / speeds[1]:.2f}**"] if len(speeds) > 1 else ["–", "–"]
        rows.append([*row, f"≥ {GOAL}", f"{floor:,.0f}"])
    others.say(sides)
    for side in sides:
        side.close()
    return rows


def write_model(folder: Path, name: str) -> Path:
    """A model folder with random weights and a byte-level vocabulary."""
    import tokenizers
    import torch

    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.model.decoder import Decoder
    from bottega.tokenizer.tokenizer import byte_of_character
    from bottega.train.state import weights_of

    layers, hidden, heads, kv_heads, intermediate, vocab, _ = SHAPES[name]
    config = ModelConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=64, max_position_embeddings=2048,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True, initializer_range=0.02, dtype="float32",
    )  # fmt: skip
    folder.mkdir()
    write_tensors(folder, weights_of(Decoder(config).initialise(torch.Generator().manual_seed(0))))
    write_model_files(folder, config)
    characters = list(byte_of_character())
    words = itertools.chain(characters, map("".join, itertools.product(characters, repeat=2)))
    vocabulary = {word: number for number, word in enumerate(itertools.islice(words, vocab))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def prompts(count: int, vocab_size: int) -> Any:
    """(count, PROMPT_TOKENS) random ids, the same for both sides."""
    import torch

    return torch.randint(3, vocab_size, (count, PROMPT_TOKENS), generator=torch.Generator().manual_seed(1))


def ours(settings: dict[str, Any]) -> None:
    from bottega.generate.generator import Generator
    from bottega.generate.sampling import Sampling

    generator = Generator.load(settings["folder"], device="cpu", dtype=settings["dtype"], threads=settings["threads"])
    generator.tokenizer.stop_ids = frozenset()  # every answer has the same length
    sampling = Sampling(max_new_tokens=settings["tokens"], temperature=0.0)

    def work(count: int) -> dict[str, Any]:
        rows = prompts(count, generator.config.vocab_size).tolist()
        started = alternate.now(settings)
        if count == 1:
            answers = [generator.complete(rows[0], sampling)]
        else:
            answers = generator.complete_many(rows, sampling)
        return {"seconds": alternate.now(settings) - started, "ids": [answer.token_ids for answer in answers]}

    alternate.serve(work)


def peer(settings: dict[str, Any]) -> None:
    import torch
    import transformers

    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    dtype = getattr(torch, settings["dtype"])
    model = transformers.AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    limits = {"do_sample": False, "max_new_tokens": settings["tokens"], "pad_token_id": 0}

    @torch.inference_mode()
    def work(count: int) -> dict[str, Any]:
        ids = prompts(count, model.config.vocab_size)
        started = alternate.now(settings)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **limits)
        return {"seconds": alternate.now(settings) - started, "ids": out[:, PROMPT_TOKENS:].tolist()}

    alternate.serve(work)


if __name__ == "__main__":
    main()
