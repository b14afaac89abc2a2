"""What is left of a judge's verdicts when the order is exchanged."""


def judged(verdicts: list[tuple[str, str]]) -> tuple[float, float]:
    """(A's share of wins, advantage of the first place).

    Each pair has two verdicts, "first" or "second": the first with A shown first, the other with B shown first. A pair
    counts 1 for A if both verdicts are for A, 0 if both are for B, else ½. The advantage is the share of all verdicts
    that went to the place shown first, less ½. Raises ValueError without pairs.
    """
    raise NotImplementedError
