"""The unbiased pass@k (Chen et al. 2021)."""

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k programs passes, drawn without putting back from n of which c pass.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    raise NotImplementedError


def mean_pass_at_k(results: list[tuple[int, int]], k: int) -> float:
    """The mean over problems, each with its (n, c)."""
    raise NotImplementedError
