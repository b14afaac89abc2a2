"""Fine-tuning with LoRA, `bottega train` against TRL's trainers on PEFT: tokens per second, memory, and the losses.

Same random Llama (tied, float32), same adapter (r 8 on all linear layers, alpha 16, no dropout), same conversations or
pairs (log-normal lengths, 150 tokens on average) in the same order, 8 examples a step, AdamW at a constant rate, the
same clipping. Every run is a fresh process; the runs of all sides alternate, and their medians are printed. Tokens are
real ones: padding counts for nobody. Memory is the peak above what the process held when everything was imported.

TRL runs as it comes (padded batches, activations recomputed), without recomputing, and (SFT) with its packing of
documents, as many rows a step as hold the same tokens. Float32 for all, as the processor has no other that all share.
DPO's reference is the model with its adapter switched off, on both sides.

The floor is the products that nobody can leave out, over their measured rate: forward and input gradients of the
frozen weights, three passes of the adapter's, the head on trained tokens only; for DPO one more forward pass.

    python -m venv trl && trl/bin/pip install torch==2.13.0 -r benchmarks/requirements-trl.txt
    python benchmarks/finetune_vs_trl.py --trl trl/bin/python
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import alternate
from bottega.checkpoint.config import ModelConfig
from bottega.core.machine import peak_memory_bytes
from bottega.core.progress import Quiet

# layers, width, feed-forward, vocabulary
MODELS = {"2M": (2, 128, 384, 8192), "20M": (8, 384, 1024, 16384), "110M": (12, 768, 2048, 32000)}
Runs = dict[str, list[alternate.Answer]]  # of each side
STAGES = ("sft", "dpo")
PAIR = ("chosen", "rejected")
WAYS = {"sft": ("as it comes", "no recomputing", "packed"), "dpo": ("as it comes", "no recomputing")}
GOALS, MEMORY_GOAL = {"sft": 2.0, "dpo": 1.5}, 0.6
BATCH, ROW_LENGTH, RANK, ALPHA, RATE, CLIP = 8, 512, 8, 16, 2e-4, 1.0
BETAS = (0.9, 0.95)
MEDIAN_TOKENS, SPREAD = 110, 0.8  # of an example: 150 on average
WARM_UP = 2  # steps of a run that are not timed
SHOWN = 10  # losses
TOLERANCE = 2e-3  # of the first loss, in nats; later ones differ as the adapters begin at other random values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a model of 2M, few steps, one run each")
    parser.add_argument("--trl", help="a Python that has TRL (default: this one)")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: 20M and 110M")
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: both")
    parser.add_argument("--steps", type=int, default=None, help="of each run (default: 12)")
    parser.add_argument("--repeat", type=int, default=None, help="runs of each side (default: 3)")
    parser.add_argument("--only", choices=("ours", "trl"), help="one side alone")
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    if arguments.side:
        (ours if arguments.side == "ours" else peer)(arguments.settings)
        return
    machine = alternate.machine_settings(arguments)
    rates = alternate.say_machine(machine["threads"])
    steps = arguments.steps or (4 if arguments.quick else 12)
    repeat = arguments.repeat or (1 if arguments.quick else 3)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.model or (["2M"] if arguments.quick else ["20M", "110M"]):
            folder = Path(scratch) / model
            write_model(folder, model)
            for stage in arguments.stage or STAGES:
                settings = {"folder": str(folder), "stage": stage, "steps": steps, **machine}
                settings |= write_examples(folder, stage, steps)
                runs = run_all(settings, arguments.trl or sys.executable, repeat, arguments.only)
                rows += table(model, settings, runs, rates.float32)
    alternate.print_table(
        ("model", "stage", "TRL", "ours, tok/s", "TRL, tok/s", "ratio", "goal", "floor, tok/s",
         "ours, MiB", "TRL, MiB", "ratio", "goal", "TRL's padding"), rows,
    )  # fmt: skip


# The material: a model, a tokenizer, examples


def write_model(folder: Path, name: str) -> None:
    """A model folder with random weights and a tokenizer trained on words like those of the examples."""
    import torch

    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.model.decoder import Decoder
    from bottega.tokenizer import training
    from bottega.train.state import weights_of

    layers, hidden, intermediate, vocab = MODELS[name]
    config = ModelConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, head_dim=64, max_position_embeddings=1024,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True, initializer_range=0.02, dtype="float32",
        bos_token_id=training.BOS_ID, eos_token_id=(training.EOS_ID,), pad_token_id=training.PAD_ID,
    )  # fmt: skip
    folder.mkdir()
    write_tensors(folder, weights_of(Decoder(config).initialise(torch.Generator().manual_seed(0))))
    write_model_files(folder, config)
    words = Words(random.Random(0))
    training.write_folder(training.train((words.text(200) for _ in range(400)), 6000), folder)


class Words:
    """Made-up words, the common ones as common as in a language (their frequency falls with their rank)."""

    def __init__(self, source: random.Random) -> None:
        syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
        names = random.Random("words")
        self._words = ["".join(names.choices(syllables, k=names.randint(1, 4))) for _ in range(3000)]
        self._weights = [1 / (rank + 3) for rank in range(len(self._words))]
        self._source = source

    def text(self, words: int) -> str:
        return " ".join(self._source.choices(self._words, self._weights, k=max(1, words)))


def write_examples(folder: Path, stage: str, steps: int) -> dict[str, Any]:
    """`STAGE.jsonl` with the examples of `steps` steps; returns its path and what the figures need to know of it."""
    from bottega.tokenizer.tokenizer import Tokenizer

    source = random.Random(stage)
    words, tokenizer = Words(source), Tokenizer.load(folder)
    path, lengths, documents, trained = folder / f"{stage}.jsonl", list[int](), list[int](), 0
    with path.open("w", encoding="utf-8") as file:
        while len(lengths) < BATCH * steps:
            row = (_conversation if stage == "sft" else _pair)(source, words)
            answers = [row["messages"]] if stage == "sft" else [row["prompt"] + row[key] for key in PAIR]
            sizes = [len(tokenizer.encode_markup(chatml(each))) for each in answers]
            if max(sizes) > ROW_LENGTH:  # nothing is ever cut
                continue
            file.write(json.dumps(row) + "\n")
            lengths.append(sum(sizes))
            documents += sizes
            said = [each["content"] for messages in answers for each in messages if each["role"] == "assistant"]
            trained += sum(len(tokenizer.encode(text)) + 1 for text in said)
    order = list(range(len(lengths)))
    return {
        "data": str(path), "lengths": lengths, "documents": documents, "order": order,
        "trained_share": trained / sum(documents),
    }  # fmt: skip


def _conversation(source: random.Random, words: Words) -> dict[str, Any]:
    left, messages = _draw(source), list[dict[str, str]]()
    while left > 0 or not messages:
        turn = left if left < 80 else left * source.uniform(0.5, 1)
        messages += [_message("user", words, turn * 0.4), _message("assistant", words, turn * 0.6)]
        left -= max(turn, 8)
    return {"messages": messages}


def _pair(source: random.Random, words: Words) -> dict[str, Any]:
    length = _draw(source)
    row = {"prompt": [_message("user", words, length * 0.4)]}
    return row | {key: [_message("assistant", words, length * 0.6 * source.uniform(0.7, 1.3))] for key in PAIR}


def _draw(source: random.Random) -> float:
    return min(max(MEDIAN_TOKENS * source.lognormvariate(0, SPREAD), 16), ROW_LENGTH - 40) - 10  # the template's tokens


def _message(role: str, words: Words, tokens: float) -> dict[str, str]:
    return {"role": role, "content": words.text(round(tokens))}


def chatml(messages: list[dict[str, str]]) -> str:
    return "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages)


# Runs, each in a process of its own


def run_all(settings: dict[str, Any], python: str, repeat: int, only: str | None) -> Runs:
    """Each side's runs: ours, and TRL's ways."""
    names = [] if only == "trl" else ["ours"]
    names += [] if only == "ours" else list(WAYS[settings["stage"]])
    runs: Runs = {name: [] for name in names}
    others = alternate.OtherWork()
    for number in range(repeat):
        for name in names:
            out = Path(settings["folder"]) / f"out {settings['stage']} {name} {number}"
            mine = {**settings, "way": name, "out": str(out)}
            side = alternate.Side(__file__, name, mine, sys.executable if name == "ours" else python)
            runs[name].append(side.ask())
            side.close()
            shutil.rmtree(out, ignore_errors=True)
    others.say()
    return runs


def ours(settings: dict[str, Any]) -> None:
    """`bottega train RECIPE --out DIR`, with a clock in place of its progress bar."""
    import torch
    import yaml

    import bottega.train.run  # all that the verb needs: its memory is the baseline
    from bottega.cli import commands
    from bottega.cli.main import main as bottega

    torch.set_num_threads(settings["threads"])
    out, clock = Path(settings["out"]), Clock(settings)
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(our_recipe(settings)), "utf-8")
    baseline = peak_memory_bytes()
    alternate.reply({})
    alternate.next_request()
    commands.reporter_for = lambda *_: clock
    with redirect_stdout(sys.stderr):
        sys.argv = ["bottega", "train", str(recipe), "--out", str(out)]
        try:
            bottega()
        except SystemExit as ended:
            if ended.code:
                raise
    peak = peak_memory_bytes()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    alternate.reply({"losses": losses, "seconds": clock.seconds(), "memory": peak - baseline})
    alternate.next_request()


def our_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What stands in the recipe."""
    return {
        "stage": settings["stage"],
        "model": settings["folder"],
        "data": settings["data"],
        "adapter": {"type": "lora", "r": RANK, "alpha": ALPHA},
        "dtype": "float32",
        "threads": settings["threads"],
        "train": {
            "max_steps": settings["steps"], "learning_rate": RATE, "schedule": "constant", "warmup": 0,
            "optimizer": "adamw", "weight_decay": 0.0, "clip": CLIP, "batch_size": BATCH, "row_length": ROW_LENGTH,
        },
    }  # fmt: skip


class Clock(Quiet):
    """A reporter that notes when each step ended."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.stage, self.marks = settings, "", list[float]()

    @contextmanager
    def bar(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Iterator[Clock]:  # noqa: ARG002
        """A bar; the steps are those of the stage's."""
        before, self.stage = self.stage, name
        if name == self.settings["stage"]:
            self.mark()
        yield self
        self.stage = before

    def advance(self, amount: float = 1, note: str = "") -> None:  # noqa: ARG002
        """A step has ended, if the bar is the stage's."""
        if self.stage == self.settings["stage"]:
            self.mark()

    def mark(self) -> None:
        """Note the time."""
        self.marks.append(alternate.now(self.settings))

    def seconds(self) -> list[float]:
        """Of each step."""
        return [after - before for before, after in pairwise(self.marks)]


def peer(settings: dict[str, Any]) -> None:
    """TRL's trainer of the stage."""
    import datasets
    import peft
    import torch
    import transformers
    import trl  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(settings["threads"])
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}  # imports them
    baseline = peak_memory_bytes()
    alternate.reply({})
    alternate.next_request()
    trainer_type, config_type = kinds[settings["stage"]]
    rows = [json.loads(line) for line in Path(settings["data"]).read_text("utf-8").splitlines()]
    folder, clock = settings["folder"], Clock(settings)
    with redirect_stdout(sys.stderr):
        trainer = trainer_type(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=config_type(**their_settings(settings)),
            train_dataset=datasets.Dataset.from_list([rows[at] for at in settings["order"]]),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
            peft_config=peft.LoraConfig(
                r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        counted = count_tokens(trainer)
        trainer.add_callback(_callback(transformers, clock))
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    answer = {"losses": losses, "seconds": clock.seconds(), "memory": peak_memory_bytes() - baseline}
    alternate.reply({**answer, "tokens": counted[0::2], "padded": counted[1::2]})
    alternate.next_request()


def their_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """TRL's config: our recipe in its words, and how this side runs."""
    stage, way = settings["stage"], settings["way"]
    rows = BATCH
    if way == "packed":
        rows = max(1, round(sum(settings["lengths"]) / settings["steps"] / ROW_LENGTH))
    return {
        "output_dir": settings["out"], "max_steps": settings["steps"], "per_device_train_batch_size": rows,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "optim": "adamw_torch", "weight_decay": 0.0,
        "adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "max_grad_norm": CLIP, "max_length": ROW_LENGTH,
        "train_sampling_strategy": "sequential", "bf16": False, "use_cpu": True, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "seed": 0,
        "gradient_checkpointing": way == "as it comes",
        **({"assistant_only_loss": True, "packing": way == "packed"} if stage == "sft" else {}),
    }  # fmt: skip


def count_tokens(trainer: Any) -> list[int]:
    """A list that grows by the real and by the computed tokens of each batch that the trainer collates."""
    collate, counted = trainer.data_collator, list[int]()

    def counting(examples: Any) -> Any:
        batch = collate(examples)
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        counted.extend([ids.numel() if mask is None else int(mask.sum()), ids.numel()])
        return batch

    trainer.data_collator = counting
    return counted


def _callback(transformers: Any, clock: Clock) -> Any:
    class Marks(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.mark()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    return Marks()


# Figures


def table(model: str, settings: dict[str, Any], runs: Runs, rate: float) -> list[list[str]]:
    """The rows of one model and stage; prints the losses, and ends the script where the sides compute another one."""
    show_losses(model, settings["stage"], runs)
    mine = runs.pop("ours", [])
    floor = rate / flops_per_token(ModelConfig.read(Path(settings["folder"])), settings)
    goal = GOALS[settings["stage"]]
    speed, memory = median_speed(settings, mine), _median_memory(mine)
    rows = []
    for way, theirs in runs.items() or [("–", [])]:
        their_speed, their_memory = median_speed(settings, theirs), _median_memory(theirs)
        padding = 1 - sum(theirs[0]["tokens"]) / sum(theirs[0]["padded"]) if theirs else None
        rows.append([
            model, settings["stage"], way, _shown(speed, ",.0f"), _shown(their_speed, ",.0f"),
            f"**{_shown(_ratio(speed, their_speed), '.2f')}**", f"≥ {goal}", f"{floor:,.0f}",
            _shown(memory, ",.0f"), _shown(their_memory, ",.0f"),
            f"**{_shown(_ratio(memory, their_memory), '.2f')}**", f"≤ {MEMORY_GOAL}", _shown(padding, ".0%"),
        ])  # fmt: skip
    return rows


def show_losses(model: str, stage: str, runs: Runs) -> None:
    """The first losses side by side; packed rows hold other documents in each step, and are no comparison."""
    print(f"{model}, {stage}: losses of the first steps")
    for name, answers in runs.items():
        print(f"  {name:15}", *(f"{loss:.4f}" for loss in answers[0]["losses"][:SHOWN]))
    first = [answers[0]["losses"][0] for name, answers in runs.items() if name != "packed"]
    if max(first) - min(first) > TOLERANCE:
        raise SystemExit("the sides do not compute the same loss")


def median_speed(settings: dict[str, Any], answers: list[alternate.Answer]) -> float | None:
    """Real tokens a second over the steps behind the warm-up: the median of the runs."""
    speeds = []
    for answer in answers:
        tokens, seconds = answer.get("tokens") or step_tokens(settings), answer["seconds"]
        if not len(seconds) == settings["steps"] <= len(tokens):
            raise SystemExit(f"{len(seconds)} steps were timed, not {settings['steps']}")
        steps = slice(min(WARM_UP, settings["steps"] - 1), settings["steps"])
        speeds.append(sum(tokens[steps]) / sum(seconds[steps]))
    return statistics.median(speeds) if speeds else None


def step_tokens(settings: dict[str, Any]) -> list[int]:
    """Tokens of each step's examples."""
    ordered = [settings["lengths"][at] for at in settings["order"]]
    return [sum(ordered[at : at + BATCH]) for at in range(0, len(ordered), BATCH)]


def flops_per_token(config: ModelConfig, settings: dict[str, Any]) -> float:
    """Operations that one token needs at least."""
    embedding = config.vocab_size * config.hidden_size
    body = config.parameter_count() - embedding
    hidden, inner = config.hidden_size, config.intermediate_size
    adapter = RANK * config.num_hidden_layers * (4 * 2 * hidden + 3 * (hidden + inner))
    seen = sum(length * length for length in settings["documents"]) / sum(settings["documents"])
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * seen  # forward, causal
    once = 2 * (body + settings["trained_share"] * embedding)
    trained = 2 * once + 6 * adapter + 3 * attention
    return trained + (once + attention if settings["stage"] == "dpo" else 0)


def _median_memory(answers: list[alternate.Answer]) -> float | None:
    return alternate.median(answers, "memory") / 2**20 if answers else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _shown(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


if __name__ == "__main__":
    main()
