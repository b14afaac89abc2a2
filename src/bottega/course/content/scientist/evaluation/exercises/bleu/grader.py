import math
import random

from bottega.course.grading import close

S = ["the", "cat", "sat", "on", "the", "mat", "today"]


def check_same(task):
    """A perfect copy has 100, something else 0."""
    close(task.bleu([S], [S]), 100.0, 1e-9, "bleu([s], [s])")
    close(task.bleu([["a", "b", "c", "d", "e"]], [S]), 0.0, 1e-12, "bleu of strangers")
    close(task.bleu([["the"]], [S]), 0.0, 1e-12, "bleu of one word: there is no run of 4")


def check_clipped(task):
    """Repeating a word does not help."""
    candidate = ["the", "the", "the", "the", "cat", "sat", "on"]
    got = task.bleu([candidate], [S])
    expected = 100 * math.exp(sum(math.log(x) for x in (5 / 7, 3 / 6, 2 / 5, 1 / 4)) / 4)
    close(got, expected, 1e-9, 'bleu(["the the the the cat sat on"], …)')


def check_short(task):
    """Short candidates pay."""
    close(task.bleu([S[:5]], [S]), 100 * math.exp(1 - 7 / 5), 1e-9, "bleu of the first five words of seven")
    expected = 100 * math.exp(sum(math.log(x) for x in (7 / 9, 6 / 8, 5 / 7, 4 / 6)) / 4)
    close(task.bleu([[*S, "and", "went"]], [S]), expected, 1e-9, "bleu of a candidate that is two words too long")


def check_corpus(task):
    """Sums first, shares afterwards."""
    other = ["one", "two", "three", "four", "five"]
    got = task.bleu([S, ["one", "x", "three", "four", "y"]], [S, other])
    expected = 100 * math.exp(sum(math.log(x) for x in ((7 + 3) / 12, (6 + 1) / 10, 5 / 8, 4 / 6)) / 4)
    close(got, expected, 1e-9, "bleu of two sentences")


def check_like_the_toolchain(task):
    """Random sentences: the toolchain's own BLEU, where every order has a match."""
    import numpy as np

    from bottega.evaluate.metrics.bleu import bleu_score, bleu_statistics

    draw = random.Random(3)
    for _ in range(20):
        references = [[draw.choice("abcd") for _ in range(draw.randint(6, 14))] for _ in range(3)]
        candidates = [[w if draw.random() < 0.85 else draw.choice("abcd") for w in each][: draw.randint(5, 14)] for each in references]
        sums = np.sum([bleu_statistics([" ".join(r)], " ".join(c)) for c, r in zip(candidates, references, strict=True)], axis=0)
        if (sums[2:6] > 0).all():
            close(task.bleu(candidates, references), float(bleu_score(sums.astype(float))), 1e-6, f"bleu({candidates}, {references})")
