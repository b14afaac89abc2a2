import math
from collections import Counter


def bleu(candidates: list[list[str]], references: list[list[str]]) -> float:
    matches, totals = [0] * 4, [0] * 4
    for candidate, reference in zip(candidates, references, strict=True):
        for n in range(1, 5):
            mine, theirs = (Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (candidate, reference))
            matches[n - 1] += (mine & theirs).total()
            totals[n - 1] += mine.total()
    if 0 in matches:
        return 0.0
    c, r = sum(map(len, candidates)), sum(map(len, references))
    penalty = math.exp(1 - r / c) if c < r else 1.0
    return penalty * 100 * math.exp(sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / 4)
