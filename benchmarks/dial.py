"""One point of docs/dial.md: a model of given shape, trained with given computation on the quickstart's corpus.

    python benchmarks/dial.py --corpus workspace/quickstart/corpus --layers 4 --hidden-size 128 --flops 1.4e13
    python benchmarks/dial.py --corpus workspace/quickstart/corpus --layers 4 --hidden-size 128 --flops 1.4e13 \\
        --finetune-tokens 1.2e6 --finetune-rate 0.004

Prints bits per byte of the held-out documents in rows of --row-length tokens (no window slides, so it is a little
above what `bottega eval` gives), and, after fine-tuning, the accuracies of the multiple-choice questions.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

from bottega import verbs
from bottega.data.spec import TokensSpec
from bottega.tokenizer.spec import TokenizerSpec
from bottega.train.config import Train
from bottega.train.settings import flops_per_token, new_model_config


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--row-length", type=int, default=512)
    parser.add_argument("--tokens-per-step", type=int, default=4096)
    parser.add_argument("--flops", type=float, default=1.4e13)
    parser.add_argument("--finetune-tokens", type=float, default=0)
    parser.add_argument("--finetune-rate", type=float, default=0.004)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the computation: whether it runs at all")
    options = parser.parse_args()
    if options.quick:
        options.flops, options.finetune_tokens = options.flops / 100, options.finetune_tokens / 100
    return options


def pretrain(options: argparse.Namespace, folder: Path) -> None:
    tokenizer = folder / "tokenizer"
    verbs.tokenizer_train(data=options.corpus, vocab_size=options.vocab_size, out=tokenizer)
    for split in ("train", "heldout"):
        verbs.data_prepare(data=options.corpus, tokenizer=tokenizer, split=split, out=folder / split)
    settings: dict[str, Any] = {
        "data": folder / "train",
        "heldout": folder / "heldout",
        "tokenizer": tokenizer,
        "layers": options.layers,
        "hidden_size": options.hidden_size,
        "row_length": options.row_length,
        "tokens_per_step": options.tokens_per_step,
        "learning_rate": options.rate,
        "optimizer": options.optimizer,
        "threads": options.threads,
        "evaluate_every": 10**9,
        "evaluate_tokens": 10**6,
        "out": folder / "base",
    }
    config = new_model_config(Train(**settings), TokenizerSpec.read(tokenizer).vocab_size, {}, "float32")
    tokens = int(options.flops / flops_per_token(config, options.row_length))
    result = verbs.train(**settings, tokens=tokens)
    heldout = TokensSpec.read(folder / "heldout")
    bits = result["heldout_loss"] / math.log(2) * (heldout.tokens - heldout.documents) / heldout.text_bytes
    print(
        f"{options.layers} × {options.hidden_size}, vocabulary {options.vocab_size}, "
        f"{config.parameter_count():,} parameters: {tokens:,} tokens, {result['steps']} steps, {bits:.4f} bits per byte"
    )


def finetune(options: argparse.Namespace, folder: Path) -> None:
    verbs.data_prepare(data=options.corpus, tokenizer=folder / "tokenizer", kind="chat", out=folder / "chats")
    result = verbs.train(
        stage="sft",
        data=folder / "chats",
        model=folder / "base",
        out=folder / "chat",
        learning_rate=options.finetune_rate,
        tokens=int(options.finetune_tokens),
        tokens_per_step=options.tokens_per_step // 2,
        row_length=options.row_length,
        threads=options.threads,
    )
    choice = verbs.eval(model=str(folder / "chat"), questions=options.corpus, threads=options.threads)["choice"]
    groups = ", ".join(
        f"{name} {part['accuracy']:.3f} (answers alone {part['answers_alone']:.3f})"
        for name, part in choice["by_group"].items()
    )
    print(f"fine-tuned for {result['passes']} passes, loss {result['loss']:.3f}: {groups}")


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as name:
        pretrain(options, Path(name))
        if options.finetune_tokens:
            finetune(options, Path(name))


if __name__ == "__main__":
    main()
