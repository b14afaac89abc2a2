import math


def perplexity(losses: list[list[float]]) -> float:
    count = sum(map(len, losses))
    if not count:
        raise ValueError("no token")
    return math.exp(sum(map(sum, losses)) / count)


def bits_per_byte(losses: list[list[float]], texts: list[str]) -> float:
    size = sum(len(text.encode()) for text in texts)
    if not size:
        raise ValueError("no text")
    return sum(map(sum, losses)) / math.log(2) / size
