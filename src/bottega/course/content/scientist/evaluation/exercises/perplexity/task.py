"""Two ways to say how surprised a model was."""

import math


def perplexity(losses: list[list[float]]) -> float:
    """e to the mean loss of a token; `losses` are −ln p of the tokens of each text. Raises ValueError without a token."""
    raise NotImplementedError


def bits_per_byte(losses: list[list[float]], texts: list[str]) -> float:
    """All losses, in bits, over the bytes of all texts in UTF-8. Raises ValueError for empty texts."""
    raise NotImplementedError
