"""Scoring and generating for evaluation, against lm-evaluation-harness on transformers, at equal scores.

The same random model of 110M parameters, the same tokens, the same number of rows in a batch, float32. Every row of the
table is one shape of a task: what stands before a question is drawn for each item (10-shot), fixed (5-shot, MMLU) or
not there. The scores of both sides are compared before a ratio is printed. The floor is the tokens that nobody has to
compute twice, times two FLOPs a parameter, over the measured rate of matrix products.

    pip install lm_eval==0.4.13
    python benchmarks/evaluate_vs_lm_eval.py
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import alternate
import decode_vs_transformers
from bottega.checkpoint.config import ModelConfig

decode_vs_transformers.SHAPES["110M"] = (12, 768, 12, 12, 2048, 32000, 24)
BATCH = 8
CONTEXT = 1536
# name → (items, tokens before all questions, of each item's own examples, of a question, choices, tokens of each), goal
SHAPES: dict[str, tuple[tuple[int, ...], float]] = {
    "4 choices, 0-shot": ((24, 0, 0, 85, 4, 25), 2.0),
    "4 choices, 10-shot, examples per item": ((4, 0, 1065, 85, 4, 25), 4.0),
    "4 letters, 5-shot, fixed examples": ((32, 500, 0, 100, 4, 1), 8.0),
}
GENERATION = (16, 200, 32)  # prompts, tokens of each at most, tokens of each answer
GENERATION_GOAL = 1.5
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small model, fewer items")
    parser.add_argument("--repeat", type=int, default=3)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side == "ours" else peer)(arguments.settings)
        return
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    names = ["ours", "peer"] if importlib.util.find_spec("lm_eval") else ["ours"]
    if len(names) == 1:
        print("lm_eval is not installed: only our side is measured.")
    others = alternate.OtherWork()
    name = "small" if arguments.quick else "110M"
    with tempfile.TemporaryDirectory() as scratch:
        folder = decode_vs_transformers.write_model(Path(scratch) / name, name)
        config = ModelConfig.read(folder)
        settings = {"folder": str(folder), **machine}
        sides = [alternate.Side(__file__, side, settings) for side in names]
        rows = [row(config, shape, sides, arguments, rates.float32) for shape in (*SHAPES, "generation")]
        peaks = [alternate.alternate([side], ["memory"], warm_up=0)[0][0]["bytes"] / 2**20 for side in sides]
        for side in sides:
            side.close()
    others.say(sides)
    header = ("shape", "ours, s", "lm-eval, s", "ratio", "goal", "floor, s", "largest difference, nats")
    alternate.print_table(header, rows)
    print("peak memory, MiB: " + ", ".join(f"{side} {peak:,.0f}" for side, peak in zip(names, peaks, strict=True)))


def row(config: ModelConfig, shape: str, sides: list[Any], arguments: argparse.Namespace, rate: float) -> list[str]:
    """One row of the table."""
    size = "quick" if arguments.quick else "full"
    # Other tokens each time: what an earlier repetition left in the prefix cache must not help.
    commands = [f"{shape}|{size}|{number}" for number in range(arguments.repeat + 1)]
    answers = alternate.alternate(sides, commands, warm_up=1)
    seconds = [statistics.median(each["seconds"] for each in side) for side in answers]
    difference = "–"
    if len(answers) > 1:
        pairs = zip(answers[0][0]["scores"], answers[1][0]["scores"], strict=True)
        largest = max(abs(a - b) for a, b in pairs)
        if largest > TOLERANCE:
            raise SystemExit(f"{shape}: the sides differ by {largest} nats")
        difference = f"{largest:.1e}"
    body = config.parameter_count() - (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)
    unique = sum(_unique_tokens(shape, arguments.quick))
    goal = GENERATION_GOAL if shape == "generation" else SHAPES[shape][1]
    ratio = f"**{seconds[1] / seconds[0]:.2f}**" if len(seconds) > 1 else "–"
    theirs = f"{seconds[1]:.2f}" if len(seconds) > 1 else "–"
    return [shape, f"{seconds[0]:.2f}", theirs, ratio, f"≥ {goal}", f"{2 * body * unique / rate:.2f}", difference]


def _unique_tokens(shape: str, quick: bool) -> tuple[int, int]:
    """Tokens before and behind what is scored, each counted once."""
    if shape == "generation":
        prompts = _prompts(quick)
        return sum(map(len, prompts)), len(prompts) * GENERATION[2]
    items, fixed, examples, question, choices, length = _sizes(shape, quick)
    return fixed + items * (examples + question), items * choices * (length - 1)


def _sizes(shape: str, quick: bool) -> tuple[int, ...]:
    items, *rest = SHAPES[shape][0]
    return (max(2, items // 4) if quick else items, *rest)


def _pairs(shape: str, vocabulary: int, quick: bool, number: str) -> list[tuple[list[int], list[int]]]:
    source = random.Random(shape + number)

    def draw(count: int) -> list[int]:
        return [source.randrange(300, vocabulary) for _ in range(count)]

    items, fixed, examples, question, choices, length = _sizes(shape, quick)
    before, letters = draw(fixed), [draw(1) for _ in range(choices)]
    pairs = []
    for _ in range(items):
        context = before + draw(examples + question)
        pairs += [(context, letters[choice] if length == 1 else draw(length)) for choice in range(choices)]
    return pairs


def _prompts(quick: bool, number: str = "") -> list[list[int]]:
    source = random.Random("generation" + number)
    count, longest, _ = GENERATION
    lengths = [source.randrange(longest // 4, longest) for _ in range(count // 4 if quick else count)]
    return [[source.randrange(300, 4000) for _ in range(length)] for length in lengths]


def ours(settings: dict[str, Any]) -> None:
    """Our side: answers each command on standard input."""
    from bottega.evaluate.harness.answers import answer_all
    from bottega.evaluate.harness.requests import Generation, Score
    from bottega.evaluate.harness.store import Store
    from bottega.evaluate.tasks.schema import TaskConfig
    from bottega.generate.config import OnEngine
    from bottega.generate.generator import Generator

    config = OnEngine(model=settings["folder"], cache_tokens=16384)
    generator = Generator.load(
        settings["folder"], dtype="float32", threads=settings["threads"], settings=config, max_batch=BATCH
    )
    task = TaskConfig(task="shape", dataset_path="none", test_split="none")

    def answer(command: str) -> dict[str, Any]:
        if command == "memory":
            return {"bytes": _peak()}
        shape, size, number = command.split("|")
        quick, vocabulary = size == "quick", generator.config.vocab_size
        if shape == "generation":
            requests: list[Any] = [Generation(tuple(prompt), GENERATION[2], ()) for prompt in _prompts(quick, number)]
        else:
            requests = [
                Score((*before, *after), len(before)) for before, after in _pairs(shape, vocabulary, quick, number)
            ]
        started = alternate.now(settings)
        found = answer_all(generator, task, requests, Store(None, ""))
        seconds = alternate.now(settings) - started
        return {"seconds": seconds, "scores": [0.0 if isinstance(each, str) else each[0] for each in found]}

    alternate.serve(answer)


def peer(settings: dict[str, Any]) -> None:
    """lm-evaluation-harness's side, below its tokenizer: the same tokens go in."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="ā", pad_token="ā")
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=CONTEXT)

    def answer(command: str) -> dict[str, Any]:
        if command == "memory":
            return {"bytes": _peak()}
        shape, size, number = command.split("|")
        quick = size == "quick"
        started = alternate.now(settings)
        if shape == "generation":
            prompts = sorted(_prompts(quick, number), key=len, reverse=True)
            for first in range(0, len(prompts), BATCH):
                _continue(harness, torch, prompts[first : first + BATCH])
            return {"seconds": alternate.now(settings) - started, "scores": [0.0] * len(prompts)}
        pairs = _pairs(shape, model.config.vocab_size, quick, number)
        requests = [(("", str(at)), *pair) for at, pair in enumerate(pairs)]
        found = harness._loglikelihood_tokens(requests, disable_tqdm=True)
        return {"seconds": alternate.now(settings) - started, "scores": [score for score, _ in found]}

    alternate.serve(answer)


def _continue(harness: Any, torch: Any, prompts: list[list[int]]) -> None:
    """What `generate_until` does with a batch: left padding, one `generate` with a check of each row's end."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    harness._model_generate(
        context=ids, attention_mask=mask, stop=["\0never\0"], max_length=longest + GENERATION[2],
        min_length=longest + GENERATION[2],
    )  # fmt: skip


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
