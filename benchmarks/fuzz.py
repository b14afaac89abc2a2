"""Coverage-guided fuzzing of the parsers of foreign files, with atheris (which is no dependency of the project).

    python benchmarks/fuzz.py TARGET --seconds 60 [--corpus FOLDER]

TARGET is one of safetensors, gguf, config, sentencepiece, tiktoken, tokenizer, template. Whatever the bytes are, only
errors of ours may escape; anything else ends the run with a traceback and the input in `crash-*`. The suite's own
fuzzing (hypothesis, 2,000 cases a parser in the slow tier) needs no atheris.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

try:
    import atheris  # pyright: ignore[reportMissingImports]
except ImportError:
    atheris = None


def parsers() -> dict[str, tuple[str, Callable[[Path], object], bytes]]:
    """Target → name of the file, what reads it, and a beginning that gets past its first check."""
    import json

    from bottega.checkpoint.config import ModelConfig
    from bottega.checkpoint.gguf import open_gguf
    from bottega.checkpoint.header import read_header
    from bottega.tokenizer.foreign.source import convert
    from bottega.tokenizer.template import render
    from bottega.tokenizer.tokenizer import Tokenizer

    def rendered(path: Path) -> str:
        text = path.read_bytes().decode("utf-8", "replace")
        return render(text, [{"role": "user", "content": "x"}], add_generation_prompt=True, bos_token="<s>")

    config = {"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8}
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return {
        "safetensors": ("model.safetensors", read_header, len(header).to_bytes(8, "little") + header + b"\0" * 4),
        "gguf": ("model.gguf", open_gguf, b"GGUF\3\0\0\0" + b"\0" * 16),
        "config": ("config.json", lambda path: ModelConfig.read(path.parent), json.dumps(config).encode()),
        "sentencepiece": ("tokenizer.model", convert, b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02"),
        "tiktoken": ("ranks.tiktoken", convert, b"IQ== 0\nIg== 1\n"),
        "tokenizer": ("tokenizer.json", lambda path: Tokenizer.load(path.parent), b'{"model":{"type":"BPE"}}'),
        "template": ("chat_template.jinja", rendered, b"{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="folder of first inputs; what is found is added to it")
    parser.add_argument("--quick", action="store_true", help="ten seconds")
    options = parser.parse_args()
    if atheris is None:
        print("atheris is not installed: pip install atheris")
        return
    with atheris.instrument_imports(include=["bottega"]):
        targets = parsers()
        from bottega.core.errors import BottegaError
    if options.target not in targets:
        sys.exit(f"unknown target {options.target!r}; known: {', '.join(targets)}")
    name, read, first = targets[options.target]
    folder = Path(tempfile.mkdtemp())
    corpus = options.corpus or folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "first").write_bytes(first)
    place = folder / "input"
    place.mkdir()

    def one(content: bytes) -> None:
        (place / name).write_bytes(content)
        with contextlib.suppress(BottegaError):
            read(place / name)

    seconds = 10 if options.quick else options.seconds
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=2048", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
