"""Whether greedy decoding gives transformers' tokens, on real model folders.

    python benchmarks/greedy_equals_transformers.py FOLDER...

Both continue a few beginnings for 200 tokens (or to the end of the context), in float32; stop tokens
do not stop them. Exit status 1 if any token differs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import alternate

BEGINNINGS = ("Once upon a time", "The little dog", "“Hello”, she said. \n\n", "1 + 1 =")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="50 tokens")
    arguments = parser.parse_args()
    if not alternate.peer_installed():
        return
    equal = [compare(folder, 50 if arguments.quick else arguments.tokens) for folder in arguments.folders]
    raise SystemExit(0 if all(equal) else 1)


def compare(folder: Path, tokens: int) -> bool:
    """Print how far each answer agrees; whether all do."""
    import torch
    import transformers

    from bottega.generate.generator import Generator
    from bottega.generate.sampling import Sampling

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    generator = Generator.load(folder, device="cpu", dtype="float32")
    generator.tokenizer.stop_ids = frozenset()
    oracle = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    oracle.generation_config.eos_token_id = None
    every = True
    for beginning in BEGINNINGS:
        prompt = generator.prompt_ids(beginning, chat=False)
        count = min(tokens, generator.context_length - len(prompt))
        ids = generator.complete(prompt, Sampling(max_new_tokens=count, temperature=0.0)).token_ids
        expected = oracle.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count, do_sample=False, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        same = next((at for at, pair in enumerate(zip(ids, expected, strict=True)) if pair[0] != pair[1]), count)
        print(f"{folder.name}: {beginning!r}: {same} of {count} tokens equal{'' if same == count else '  DIFFERS'}")
        every &= same == count
    return every


if __name__ == "__main__":
    main()
