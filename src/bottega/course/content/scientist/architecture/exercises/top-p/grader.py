import numpy as np

from bottega.course.grading import close, expect


def check_example(task):
    """Four tokens by hand."""
    given = np.array([0.1, 0.5, 0.15, 0.25])
    close(task.top_p(given, 0.7), np.array([0.0, 2 / 3, 0.0, 1 / 3]), 1e-9, "top_p([0.1, 0.5, 0.15, 0.25], 0.7)",
          "0.5 alone is less than 0.7, with 0.25 it is enough: tokens 1 and 3 stay")


def check_first_stays(task):
    """The most probable token always stays."""
    close(task.top_p(np.array([0.05, 0.9, 0.05]), 0.1), np.array([0.0, 1.0, 0.0]), 1e-9, "top_p([0.05, 0.9, 0.05], 0.1)",
          "0.9 alone covers 0.1")


def check_all(task):
    """p = 1 keeps everything."""
    given = np.array([0.2, 0.3, 0.5])
    close(task.top_p(given, 1.0), given, 1e-9, "top_p([0.2, 0.3, 0.5], 1.0)")


def check_smallest_set(task):
    """Random distributions: the kept set covers p, and no smaller one does."""
    draw = np.random.default_rng(0)
    for _ in range(100):
        given, p = draw.dirichlet(np.full(draw.integers(2, 30), 0.5)), float(draw.uniform(0.05, 0.99))
        got = task.top_p(given.copy(), p)
        call = f"top_p({np.round(given, 3).tolist()}, {p:.2f})"
        expect(abs(got.sum() - 1) < 1e-9, "the kept probabilities do not sum to 1", call, got=got.sum())
        kept = got > 0
        mass = given[kept].sum()
        expect(mass >= p - 1e-12, "what is kept covers less than p", call, f"at least {p:.3f}", mass)
        expect(mass - given[kept].min() < p, "a smaller set would have been enough", call, got=int(kept.sum()))
        expect(kept.all() or given[kept].min() >= given[~kept].max(), "a more probable token was cut off than one that stayed", call)
        close(got[kept] * mass, given[kept], 1e-9, call, "the kept tokens keep their proportions, each at its own place")
