import math

import numpy as np

from bottega.course.grading import close, expect


def check_independent(task):
    """Words that have nothing to do with each other have 0."""
    table = np.outer([1, 2, 3], [4, 5])
    close(task.ppmi(table), np.zeros((3, 2)), 1e-9, "ppmi(outer([1, 2, 3], [4, 5]))")
    close(task.ppmi(np.array([[3.0]])), np.zeros((1, 1)), 1e-9, "ppmi([[3]])")
    close(task.ppmi(np.array([[0.25]])), np.zeros((1, 1)), 1e-9, "ppmi([[0.25]])")


def check_by_hand(task):
    """A table small enough for a pencil."""
    close(task.ppmi(np.array([[4, 0], [0, 4]])), np.array([[math.log(2), 0], [0, math.log(2)]]), 1e-9, "ppmi([[4, 0], [0, 4]])")
    expected = np.array([[0.0, math.log(3 * 10 / (4 * 5))], [math.log(4 * 10 / (6 * 5)), 0.0]])
    close(task.ppmi(np.array([[1, 3], [4, 2]])), expected, 1e-9, "ppmi([[1, 3], [4, 2]])")


def check_frequent_context(task):
    """A context that is everybody's tells nothing of anybody."""
    got = task.ppmi(np.array([[80, 2, 0], [80, 0, 2], [80, 1, 1]]))
    close(got[:, 0], np.zeros(3), 0.05, "ppmi([[80, 2, 0], [80, 0, 2], [80, 1, 1]])[:, 0]")


def check_positive(task):
    """Nothing is negative, infinite or undefined."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        counts = draw.poisson(1.0, size=(draw.integers(2, 8), draw.integers(2, 8)))
        counts[:, 0] += 1
        counts[0] += 1
        got = task.ppmi(counts.copy())
        expect(bool(np.isfinite(got).all()), "an entry is infinite or undefined", f"ppmi({counts.tolist()})")
        expect(bool((got >= 0).all()), "an entry is negative", f"ppmi({counts.tolist()})", ">= 0", float(got.min()))


def check_random(task):
    """Random tables, wide and tall: each entry by the definition."""
    draw = np.random.default_rng(1)
    for _ in range(20):
        counts = draw.integers(1, 20, size=(draw.integers(2, 7), draw.integers(2, 7)))
        n = counts.sum()
        expected = [
            [max(0.0, math.log(counts[i, j] * n / (counts[i].sum() * counts[:, j].sum()))) for j in range(counts.shape[1])]
            for i in range(counts.shape[0])
        ]
        close(task.ppmi(counts.copy()), np.array(expected), 1e-9, f"ppmi({counts.tolist()})")
