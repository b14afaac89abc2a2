"""Training tokens per second and peak memory, against a transformers + AdamW loop.

Same weights to begin with, same documents in the same steps, same precision, clipping and AdamW; the
losses of both are compared step by step. Our side is `train.loop.fit`. The peer's loop is what its
users write: `model(**batch).loss.backward()`, eight rows at a time, accumulated to the same step.

- packed: documents of varied length (log-normal, median 90 tokens, at most 512). Ours packs them; the
  peer pads each batch to its longest document, with attention mask and labels of -100.
- sorted: the same, but the peer sorts a step's documents by length first (`group_by_length`).
- equal: rows of 512 tokens each; nothing to pad.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import alternate
from bottega.checkpoint.config import ModelConfig
from bottega.core.atomic import write_json
from bottega.core.progress import Quiet

ROW_LENGTH, ROWS_PER_STEP, PEER_BATCH = 512, 16, 8
MODELS = {"small": (4, 256, 4096), "small, large vocabulary": (4, 256, 32768), "base": (6, 384, 8192)}
GOALS = {"packed": 1.5, "sorted": None, "equal": 1.0}
LEARNING_RATE, WEIGHT_DECAY, BETAS, CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest model, fewer steps")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: the first two")
    parser.add_argument("--data", choices=GOALS, action="append", help="default: all three")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=None)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side == "ours" else peer)(arguments.settings)
        return
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    names = ["ours", "peer"] if alternate.peer_installed() else ["ours"]
    steps = arguments.steps or (3 if arguments.quick else 6)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.model or list(MODELS)[: 1 if arguments.quick else 2]:
            for data in arguments.data or GOALS:
                settings = prepare(Path(scratch) / f"{model}-{data}", model, data)
                settings |= {"dtype": arguments.dtype, "data": data, **machine}
                peak = rates.bfloat16 if arguments.dtype == "bfloat16" else rates.float32
                rows.append(compare(model, settings, names, steps, peak))
    alternate.print_table(
        ("model", "data", "ours, tok/s", "peer, tok/s", "ratio", "goal", "floor, tok/s",
         "ours, peak", "peer, peak", "peer's padding"), rows,
    )  # fmt: skip


def compare(model: str, settings: dict[str, Any], names: list[str], steps: int, peak_flops: float) -> list[str]:
    """One row of the table."""
    from bottega.train.settings import flops_per_token

    others = alternate.OtherWork()
    sides = [alternate.Side(__file__, name, settings) for name in names]
    answers = alternate.alternate(sides, range(steps + 1), warm_up=0)
    others.say(sides)
    for side in sides:
        side.close()
    data = settings["data"]
    losses = [[answer["loss"] for answer in side] for side in answers]
    print(f"{model}, {data}: losses", *(" ".join(f"{loss:.4f}" for loss in side) for side in losses), sep="\n  ")
    if len(losses) > 1 and abs(losses[0][0] - losses[1][0]) > 2e-3:
        raise SystemExit("the two sides do not compute the same loss")
    speeds = [alternate.median([{"rate": a["tokens"] / a["seconds"]} for a in side[1:]], "rate") for side in answers]
    peaks = [f"{side[-1]['peak'] / 2**20:.0f} MiB" for side in answers]
    config = ModelConfig.from_data(settings["config"])
    length = np.square(settings["lengths"]).sum() / np.sum(settings["lengths"])  # what attention sees
    floor = peak_flops / flops_per_token(config, round(length))
    row = [model, data, f"{speeds[0]:,.0f}"]
    goal = "–" if GOALS[data] is None else f"≥ {GOALS[data]}"
    if len(names) == 1:
        return [*row, "–", "–", goal, f"{floor:,.0f}", peaks[0], "–", "–"]
    padding = 1 - sum(a["tokens"] for a in answers[1]) / sum(a["padded"] for a in answers[1])
    ratio = f"**{speeds[0] / speeds[1]:.2f}**"
    return [*row, f"{speeds[1]:,.0f}", ratio, goal, f"{floor:,.0f}", *peaks, f"{padding:.0%}"]


def prepare(folder: Path, model: str, data: str) -> dict[str, Any]:
    """Weights and tokens on disk, for both sides to read."""
    import torch

    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.data.shards import ShardWriter
    from bottega.model.decoder import Decoder
    from bottega.train.state import weights_of

    layers, hidden, vocab = MODELS[model]
    config = ModelConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=-(-hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=layers, num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128,
        head_dim=64, max_position_embeddings=1024, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=True, initializer_range=0.02, dtype="float32",
    )  # fmt: skip
    (folder / "model").mkdir(parents=True)
    (folder / "tokens").mkdir()
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0))
    write_tensors(folder / "model", weights_of(decoder))
    write_model_files(folder / "model", config)
    random = np.random.default_rng(0)
    lengths = np.exp(random.normal(np.log(90), 0.9, 4000)).clip(8, ROW_LENGTH).astype(int)
    if data == "equal":
        lengths = np.full(500, ROW_LENGTH)
    writer = ShardWriter(folder / "tokens", vocab_size=vocab, chat=False, shard_tokens=10**9)
    for length in lengths:
        writer.add((random.zipf(1.3, length) % vocab).tolist())  # frequencies like those of words
    writer.close()
    write_json(
        folder / "tokens" / "manifest.json",
        {
            "schema_version": 1, "kind": "tokens", "chat": False, "vocab_size": vocab, "tokenizer_hash": "",
            "template_hash": "", "tokens": writer.tokens, "documents": writer.documents,
            "trained_tokens": writer.trained_tokens, "longest": writer.longest, "text_bytes": 0,
            "shards": writer.shards,
        },
    )  # fmt: skip
    return {"folder": str(folder), "config": config.to_data(), "lengths": lengths.tolist()}


class Asked(Quiet):
    """The loop's reporter: it tells the parent about each step, and waits until the next is asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        alternate.reply({})
        self.wait()

    def wait(self) -> None:
        alternate.next_request()
        self.started = alternate.now(self.settings)

    def advance(self, amount: float = 1, note: str = "") -> None:
        seconds = alternate.now(self.settings) - self.started
        alternate.reply({"seconds": seconds, "tokens": amount, "loss": float(note.split()[1])})  # "loss 3.141 · …"
        self.wait()


def ours(settings: dict[str, Any]) -> None:
    """The training loop as `bottega train` runs it."""
    import torch

    from bottega.data.batches import Batches
    from bottega.model.load import DTYPES, load_decoder
    from bottega.train.config import Train
    from bottega.train.loop import Between, fit
    from bottega.train.settings import Settings
    from bottega.train.stage import Forward, Machine
    from bottega.train.stages.tokens import TokenStage
    from bottega.train.trainee import make_optimizers

    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    out = folder / "out"
    out.mkdir()
    config = Train(
        data=folder / "tokens", model=folder / "model", optimizer="adamw", schedule="constant", warmup=0.0, out=out,
        save_every=10**6, clip=CLIP, weight_decay=WEIGHT_DECAY, micro_batch_tokens=ROW_LENGTH * PEER_BATCH,
    )  # fmt: skip
    steps = 10**6  # more than are asked for
    plan = Settings(steps, ROWS_PER_STEP, ROW_LENGTH, steps * ROWS_PER_STEP * ROW_LENGTH, LEARNING_RATE, config)
    batches = Batches(folder / "tokens", row_length=ROW_LENGTH, seed=0)
    machine = Machine(torch.device("cpu"), DTYPES[settings["dtype"]], peak_flops=1e12)
    model = load_decoder(folder / "model")
    stage, optimizers = TokenStage(batches, plan, Forward(model, machine)), make_optimizers(model, plan, machine)
    fit(model, stage, optimizers, plan, machine, out, out, Asked(settings), Between())


def peer(settings: dict[str, Any]) -> None:
    """The loop that transformers' users write, on the same documents."""
    import torch
    import transformers

    from bottega.data.batches import Batches

    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.set_verbosity_error()
    folder = Path(settings["folder"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    batches = Batches(folder / "tokens", row_length=ROW_LENGTH, seed=0)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings["dtype"] == "bfloat16")

    def step(number: int) -> dict[str, Any]:
        rows = batches.rows(number * ROWS_PER_STEP, ROWS_PER_STEP)
        documents = [
            torch.from_numpy(part) for row in rows for part in np.split(row.tokens, np.cumsum(row.lengths)[:-1])
        ]
        order = np.random.default_rng(number).permutation(len(documents))
        if settings["data"] == "sorted":
            order = np.argsort([-len(document) for document in documents])
        parts = [[documents[i] for i in order[at : at + PEER_BATCH]] for at in range(0, len(order), PEER_BATCH)]

        def work() -> tuple[float, int]:
            trained = sum(len(document) - 1 for document in documents)
            loss, padded = 0.0, 0
            for part in parts:
                ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
                lengths = torch.tensor([len(document) for document in part]).unsqueeze(1)
                mask = (torch.arange(ids.shape[1]) < lengths).long()
                labels = ids.masked_fill(mask == 0, -100)
                with autocast:
                    out = model(
                        input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, num_items_in_batch=trained
                    )
                out.loss.backward()
                loss += float(out.loss.detach())
                padded += ids.numel()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss, padded

        started = alternate.now(settings)
        loss, padded = work()
        seconds = alternate.now(settings) - started
        return {"seconds": seconds, "tokens": sum(map(len, documents)), "loss": loss, "padded": padded}

    alternate.serve(step)


if __name__ == "__main__":
    main()
