"""Every model, adapter and vocabulary below a folder: opened, or refused by name.

    python benchmarks/real_files.py FOLDER...

A model is opened and asked for three tokens; a vocabulary encodes and decodes a sentence. What is refused must be
refused in one sentence. Exit status 1 if anything else happens.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.model.load import load_decoder
from bottega.tokenizer.tokenizer import Tokenizer

TEXT = "The lantern keeps the garden: naïve 12.5 €, 灯 🏮"
MODEL_FILES = (".gguf", ".bin", ".ftz", ".pth", ".pt", ".onnx")
VOCABULARIES = (".model", ".tiktoken", ".gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="the first five of each folder")
    options = parser.parse_args()
    print("| what | result | seconds |\n|---|---|---|")
    failed = 0
    for folder in options.folders:
        for path in list(things(folder))[: 5 if options.quick else None]:
            started = time.perf_counter()
            try:
                said = opened(path)
            except UserError as error:
                said = f"refused: {error.message.replace(str(path), path.name)}"
            except Exception as error:
                said, failed = f"**{type(error).__name__}: {error}**", failed + 1
            print(
                f"| {path.relative_to(folder.parent)} | {said[:150]} | {time.perf_counter() - started:.1f} |",
                flush=True,
            )
    sys.exit(1 if failed else 0)


def things(folder: Path) -> Iterator[Path]:
    """Folders that look like models, adapters or tokenizers, and single files that may be either."""
    for path in sorted([folder, *folder.rglob("*")]):
        names = {child.name for child in path.iterdir()} if path.is_dir() else set[str]()
        is_folder = names & {"config.json", "adapter_config.json", "tokenizer.json", "vocab.json", "tokenizer.bin"}
        is_named = path.suffix in (*MODEL_FILES, *VOCABULARIES) or path.name.startswith(("rwkv_vocab", "bpe_simple"))
        if is_folder or (path.is_file() and is_named):
            yield path


def opened(path: Path) -> str:
    """What it is, after it has been used; raises UserError."""
    is_vocabulary = path.suffix in VOCABULARIES or "vocab" in path.name or path.name.startswith("tok")
    if not is_vocabulary and (path.suffix in MODEL_FILES or (path / "config.json").is_file()):
        spec = ModelSpec.read(path)
        decoder = load_decoder(ModelFolder.open(path))
        with torch.inference_mode():
            assert torch.isfinite(decoder(torch.tensor([[1, 2, 3]]))).all()
        return f"{spec.config.model_type}, {spec.config.parameter_count():,} parameters, {spec.quantised or 'plain'}"
    if path.is_file() and path.suffix != ".gguf":
        from bottega.tokenizer.foreign.source import convert

        return f"{convert(path).source}"
    tokenizer = Tokenizer.load(path)
    ids = tokenizer.encode(TEXT)
    return f"{tokenizer.vocab_size:,} tokens, {tokenizer.family}; {len(ids)} for {tokenizer.decode(ids)!r}"


if __name__ == "__main__":
    main()
