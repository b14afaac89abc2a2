"""Tasks whose answers are programs: HumanEval and MBPP, judged by running their tests in `core`'s sandbox.

pass@k is the unbiased estimate of Chen et al. 2021 (arXiv:2107.03374), eq. 1: of n programs c pass, and one of k drawn
without replacement passes with probability 1 - C(n-c, k) / C(n, k). A program passes if program and tests run through
to their end within `SECONDS`; as there, it is executed in a namespace of its own, so that `if __name__ == "__main__"`
is not run, and leaving early (`sys.exit()`) is not passing. Only the standard library can be imported: an answer that
needs numpy fails here, and passes where it is installed. The sandbox keeps a program from doing harm, not from
cheating: one that is written to forge the mark of success can.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import comb
from typing import Any

from bottega.core.errors import BottegaError, UserError
from bottega.core.sandbox import run_python

Doc = dict[str, Any]
SECONDS = 3.0
_RUNNER = """
import contextlib, io, os, sys
with open("program.py", encoding="utf-8") as file:
    program = compile(file.read(), "program.py", "exec")
output, mark = sys.stdout, sys.stdin.readline()
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    exec(program, {})
print(mark, end="", file=output, flush=True)
os._exit(0)  # whatever threads the program has left
"""
# The first three problems of MBPP: its examples in every prompt.
_MBPP_EXAMPLES = (
    (
        2,
        "Write a function to find the similar elements from the given two tuple lists.",
        "def similar_elements(test_tup1, test_tup2):\n  res = tuple(set(test_tup1) & set(test_tup2))\n  return (res) ",
        (
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ),
    ),
    (
        3,
        "Write a python function to identify non-prime numbers.",
        "import math\ndef is_not_prime(n):\n    result = False\n    for i in range(2,int(math.sqrt(n)) + 1):\n"
        "        if n % i == 0:\n            result = True\n    return result",
        (
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ),
    ),
    (
        4,
        "Write a function to find the largest integers from a given list of numbers using heap queue algorithm.",
        "import heapq as hq\ndef heap_queue_largest(nums,n):\n  largest_nums = hq.nlargest(n, nums)\n"
        "  return largest_nums",
        (
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ),
    ),
)


def unbiased_pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that one of `k` programs passes, drawn from `n` of which `c` pass; raises UserError if k > n."""
    if not 1 <= k <= n:
        raise UserError(f"pass@{k} needs at least {k} responses, and there are {n}", hint=f"Set repeats: {k} or more.")
    return 1.0 - comb(n - c, k) / comb(n, k)


@lru_cache(maxsize=1)
def require_isolation() -> None:
    """Raise BottegaError where the kernel cannot keep a program from files and network: call it before any is made."""
    result = run_python("")
    if not (result.network_isolated and result.files_isolated):
        raise BottegaError(
            "this machine cannot shut programs off from its files and network, so no model's code is run here",
            hint="Run humaneval and mbpp on Linux 5.13 or later with landlock and user namespaces.",
        )


def passes(program: str, tests: str, seconds: float = SECONDS) -> bool:
    """Whether `program` and then `tests` run through to their end, in the sandbox."""
    mark = secrets.token_hex(16)
    source = f"{program}\n{tests}".encode("utf-8", "replace")
    result = run_python(_RUNNER, timeout=seconds, stdin=mark + "\n", files={"program.py": source})
    return result.ok and result.stdout.endswith(mark + "\n")


def pass_at_k(
    references: Sequence[str], predictions: Sequence[Sequence[str]], k: int | Sequence[int] = (1,)
) -> dict[str, float]:
    """`pass@k` for each of `k`, averaged over problems.

    Args:
        references: each problem's tests.
        predictions: each problem's programs.
        k: one or several.

    Raises:
        UserError: if a problem has fewer programs than k.
        BottegaError: if this machine cannot isolate them.
    """
    require_isolation()
    sizes = [k] if isinstance(k, int) else list(k)
    for programs in predictions:
        for size in sizes:
            unbiased_pass_at_k(len(programs), 0, size)  # refuses before anything runs
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = [
            sum(pool.map(passes, programs, [tests] * len(programs)))
            for tests, programs in zip(references, predictions, strict=True)
        ]
    counts = list(zip(map(len, predictions), passed, strict=True))
    return {f"pass@{size}": sum(unbiased_pass_at_k(n, c, size) for n, c in counts) / len(counts) for size in sizes}


def pass_at_1(references: str | Sequence[str], predictions: Sequence[str] | Sequence[Sequence[str]]) -> float:
    """Share of problems whose program passes (pass@1 where there are several)."""
    tests = [references] if isinstance(references, str) else list(references)
    programs = [[each] if isinstance(each, str) else list(each) for each in predictions]
    return pass_at_k(tests, programs)["pass@1"]


def humaneval_build_predictions(responses: Sequence[Sequence[str]], docs: Sequence[Doc]) -> list[list[str]]:
    """Whole programs: each document's prompt with what was generated after it."""
    return [[doc["prompt"] + response for response in each] for each, doc in zip(responses, docs, strict=True)]


def humaneval_build_predictions_instruct(responses: Sequence[Sequence[str]], docs: Sequence[Doc]) -> list[list[str]]:
    """The same of answers within a block of code: up to where it is closed."""
    return humaneval_build_predictions([[response.split("```")[0] for response in each] for each in responses], docs)


def mbpp_build_predictions(responses: Sequence[Sequence[str]], _docs: Sequence[Doc]) -> list[list[str]]:
    """The first block of code of each response, which begins inside one; empty if none is closed."""
    return [[_first_block("```" + response) for response in each] for each in responses]


def mbpp_list_fewshot_samples() -> list[Doc]:
    """The examples of MBPP's prompt, with the line ends that they have in the data set."""
    return [
        {
            "task_id": task_id,
            "text": text,
            "code": code.replace("\n", "\r\n"),
            "test_list": list(tests),
            "is_fewshot": True,
        }
        for task_id, text, code, tests in _MBPP_EXAMPLES
    ]


def _first_block(text: str) -> str:
    for candidate in (text, text.replace("```python", "```")):
        if blocks := re.findall(r"```(?:\w+)?\n?(.*?)\n?```", candidate, re.DOTALL):
            return blocks[0]
    return ""
