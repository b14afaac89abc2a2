"""What the engine's conveniences cost: a grammar, the HTTP server, blocks instead of one piece of memory.

One 125M model with random weights. *Grammar*: the same decoding with and without a JSON Schema that never ends.
*Server*: a streamed chat over HTTP against the same request in this process, per token; one client, then eight.
*Blocks*: attention over 4096 tokens in shuffled blocks against a contiguous cache and torch's own attention.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alternate
from engine_vs_peers import prompts, write_model

TOKENS = 64
LONG = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 40}, "minItems": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each once")
    parser.add_argument("--repeat", type=int, default=5)
    alternate.add_machine_options(parser)
    arguments = parser.parse_args()
    threads = alternate.machine_settings(arguments)["threads"]
    alternate.say_machine(threads)
    repeat = 1 if arguments.quick else arguments.repeat
    rows = [blocks(repeat)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_model(Path(scratch) / "125M", "125M")
        rows += [grammar(folder, threads, repeat), *server(folder, threads, repeat)]
    alternate.print_table(("what", "without", "with", "cost", "goal"), rows)


def median_of(work: Callable[[], object], repeat: int) -> float:
    """Seconds: the median of `repeat` runs, after one to warm up."""
    work()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def blocks(repeat: int) -> list[str]:
    """One decoding step of a layer: paged in shuffled blocks, against contiguous memory."""
    import torch
    import torch.nn.functional as F

    from bottega.model.kernels import library

    context, heads, kv_heads, dim = 4096, 12, 12, 64
    blocks = context // 16
    key, value = torch.randn(context, kv_heads, dim), torch.randn(context, kv_heads, dim)
    parts = torch.empty(blocks, kv_heads, dim, 16), torch.empty(blocks, kv_heads, 16, dim), None, None
    order = list(range(blocks))
    random.Random(0).shuffle(order)
    slots = torch.tensor([order[place // 16] * 16 + place % 16 for place in range(context)])
    library.store("float32", key, value, *parts, slots)
    tables, spans = torch.tensor([order]).int(), torch.tensor([[0, 1, context - 1]]).int()
    query = torch.randn(1, heads, dim)
    k, v = (part.transpose(0, 1).unsqueeze(0).contiguous() for part in (key, value))

    def paged() -> None:
        for _ in range(20):
            library.attention("float32", query, *parts, tables, spans, scale=0.125)

    def contiguous() -> None:
        for _ in range(20):
            F.scaled_dot_product_attention(query.transpose(0, 1).unsqueeze(0), k, v, scale=0.125)

    apart, together = median_of(contiguous, repeat) / 20, median_of(paged, repeat) / 20
    return [
        "attention at 4096 tokens: torch, contiguous → ours, shuffled blocks", f"{apart * 1e3:.2f} ms",
        f"{together * 1e3:.2f} ms", f"{together / apart - 1:+.0%}", "≤ +5 %",
    ]  # fmt: skip


def grammar(folder: Path, threads: int, repeat: int) -> list[str]:
    """Tokens of one request with a grammar and without."""
    from bottega.generate.generator import Generator
    from bottega.generate.settings import Sampling
    from bottega.generate.structure.schema import json_schema

    generator = Generator.load(folder, threads=threads)
    sampling = Sampling(max_new_tokens=TOKENS, temperature=1.0, seed=1, ignore_eos=True)
    prompt = prompts(1)[0]
    json_schema(generator.tokenizer, LONG)  # the vocabulary is read once

    def free() -> None:
        generator.complete(prompt, sampling)

    def bound() -> None:
        generator.complete(prompt, sampling, json_schema(generator.tokenizer, LONG))

    without, with_it = median_of(free, repeat), median_of(bound, repeat)
    generator.close()
    return [
        "a JSON Schema, per token", f"{without / TOKENS * 1e3:.2f} ms", f"{with_it / TOKENS * 1e3:.2f} ms",
        f"{with_it / without - 1:+.1%}", "< +3 %",
    ]  # fmt: skip


def server(folder: Path, threads: int, repeat: int) -> list[list[str]]:
    """Time per token of one streaming client and of eight, against the generator alone."""
    import httpx

    from bottega.generate.generator import Generator
    from bottega.generate.settings import Sampling

    generator = Generator.load(folder, threads=threads)
    how = Sampling(max_new_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    alone = {count: median_of(lambda n=count: generator.complete_many(prompts(n), how), repeat) for count in (1, 8)}
    generator.close()
    command = [sys.executable, "-m", "bottega.serve"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    settings = {"model": [str(folder)], "port": 0, "threads": threads, "max_batch": 8}
    child.stdin.write(json.dumps(settings).encode() + b"\n")
    child.stdin.flush()
    url = f"http://127.0.0.1:{json.loads(child.stdout.readline())['port']}/v1/completions"
    body: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
    rows = []
    with httpx.Client(timeout=None, trust_env=False) as client:

        def ask(prompt: list[int], number: int) -> None:
            # Another first token each time: a prefix that is in the cache would save the prompt.
            data = {**body, "model": folder.name, "prompt": [3 + number % 30000, *prompt]}
            with client.stream("POST", url, json=data) as answer:
                assert answer.status_code == 200, answer.read()
                assert sum(line.startswith("data: {") for line in answer.iter_lines()) >= 1

        for count in (1, 8):
            numbers = iter(range(count * 1000, 10**9))

            def together(count: int = count, numbers: Any = numbers) -> None:
                threads_ = [threading.Thread(target=ask, args=(row, next(numbers))) for row in prompts(count)]
                for thread in threads_:
                    thread.start()
                for thread in threads_:
                    thread.join()

            taken = median_of(together, repeat)
            cost = (taken - alone[count]) / TOKENS * 1e3
            what = f"a server, {count} client{'s' if count > 1 else ''}, per step"
            before, after = (f"{seconds / TOKENS * 1e3:.2f} ms" for seconds in (alone[count], taken))
            rows.append([what, before, after, f"{cost:+.2f} ms", "< 1 ms"])
    child.terminate()
    child.wait()
    return rows


if __name__ == "__main__":
    main()
