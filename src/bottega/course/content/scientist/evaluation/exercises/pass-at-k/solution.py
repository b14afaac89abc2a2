import math


def pass_at_k(n: int, c: int, k: int) -> float:
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError("0 <= c <= n and 1 <= k <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean_pass_at_k(results: list[tuple[int, int]], k: int) -> float:
    return sum(pass_at_k(n, c, k) for n, c in results) / len(results)
