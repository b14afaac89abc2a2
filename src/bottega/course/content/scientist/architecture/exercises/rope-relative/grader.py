import numpy as np

from bottega.course.grading import close


def check_position_zero(task):
    """At position 0 nothing is turned."""
    x = np.random.default_rng(0).normal(size=(1, 6))
    close(task.rotate(x, np.array([0])), x, 1e-12, "rotate(x, [0])")


def check_one_pair(task):
    """One pair, a quarter turn."""
    close(task.rotate(np.array([[1.0, 0.0]]), np.array([np.pi / 2])), np.array([[0.0, 1.0]]), 1e-9, "rotate([[1, 0]], [pi / 2])")


def check_lengths(task):
    """A rotation changes no length."""
    x = np.random.default_rng(1).normal(size=(5, 8))
    got = task.rotate(x, np.arange(5) * 7)
    close(np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), 1e-9, "lengths of rotate(x, positions)")


def check_relative(task):
    """Products depend on the distance of two positions alone."""
    draw = np.random.default_rng(2)
    for _ in range(30):
        d = int(draw.integers(1, 9)) * 2
        q, k = draw.normal(size=(1, d)), draw.normal(size=(1, d))
        m, n, shift = (int(each) for each in draw.integers(0, 200, 3))
        first = task.rotate(q, np.array([m])) @ task.rotate(k, np.array([n])).T
        moved = task.rotate(q, np.array([m + shift])) @ task.rotate(k, np.array([n + shift])).T
        close(moved, first, 1e-7, f"<rotate(q, {m + shift}), rotate(k, {n + shift})>", f"it must equal that at {m} and {n}")


def check_values(task):
    """Random rows: the definition, pair by pair."""
    draw = np.random.default_rng(3)
    for d in (2, 4, 8, 16):
        x, positions = draw.normal(size=(4, d)), draw.integers(0, 50, 4)
        expected = np.empty_like(x)
        for row, position in enumerate(positions):
            for i in range(d // 2):
                angle = position * 10000.0 ** (-2 * i / d)
                a, b = x[row, i], x[row, i + d // 2]
                expected[row, i] = a * np.cos(angle) - b * np.sin(angle)
                expected[row, i + d // 2] = a * np.sin(angle) + b * np.cos(angle)
        close(task.rotate(x, positions), expected, 1e-9, f"rotate of {d} numbers a row", "pair i is (x[i], x[i + d/2])")
