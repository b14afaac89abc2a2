import numpy as np

from bottega.course.grading import close, equal, expect, raises


def check_share(task):
    """A share of p becomes zero."""
    for seed, p in enumerate((0.1, 0.25, 0.5, 0.8)):
        got = task.dropout(np.ones((200, 200)), p, True, np.random.default_rng(seed))
        zero = float((got == 0).mean())
        expect(abs(zero - p) < 0.02, "p is the chance to become zero", f"share of zeros of dropout(ones, {p}, True, draw)", p, zero)


def check_survivors(task):
    """What remains is scaled so that the mean stays."""
    for seed, p in enumerate((0.0, 0.25, 0.5, 0.8)):
        got = task.dropout(np.full((200, 200), 3.0), p, True, np.random.default_rng(seed))
        close(np.unique(got[got != 0]), np.array([3.0 / (1 - p)]), 1e-9, f"what remains of 3.0 with p = {p}",
              "a share of 1 - p is left, and its mean has to be what it was")


def check_each_entry(task):
    """Each entry is drawn on its own, not whole rows or columns."""
    got = task.dropout(np.ones((60, 60)), 0.5, True, np.random.default_rng(5)) == 0
    spread = [float(got.mean(axis).std()) for axis in (0, 1)]
    expect(max(spread) < 0.15, "whole rows or columns share one chance", "dropout(ones((60, 60)), 0.5, True, draw)",
           "about 0.06 for the spread of the columns' and rows' shares", spread)


def check_evaluation(task):
    """Outside training nothing changes, and x itself never does."""
    x = np.random.default_rng(6).normal(size=(4, 7))
    before = x.copy()
    equal(task.dropout(x, 0.5, False, np.random.default_rng(0)), before, "dropout(x, 0.5, False, draw)",
          "a trained network answers with all its neurons")
    task.dropout(x, 0.5, True, np.random.default_rng(0))
    equal(x, before, "x after dropout(x, 0.5, True, draw)", "x was changed in place")


def check_seed(task):
    """The same seed gives the same mask, another seed another."""
    x = np.ones(100)
    one, two, three = (task.dropout(x, 0.5, True, np.random.default_rng(seed)) for seed in (1, 1, 2))
    equal(one, two, "dropout twice with default_rng(1)", "take the chances from draw")
    expect(not np.array_equal(one, three), "the mask does not depend on draw")


def check_gradient(task):
    """The gradient passes where the entry passed, scaled alike."""
    draw = np.random.default_rng(7)
    for p in (0.0, 0.3, 0.6):
        x, gradient = draw.normal(size=(5, 6)), draw.normal(size=(5, 6))
        kept = draw.random((5, 6)) >= p
        out = x * kept / (1 - p)
        close(task.dropout_gradient(gradient, x, out, p), gradient * kept / (1 - p), 1e-9, f"dropout_gradient(g, x, out, {p})",
              "out is x times a constant, where it passed")


def check_p(task):
    """A p that is none is refused."""
    for p in (1.0, -0.1, 1.5):
        for training in (True, False):
            raises(ValueError, task.dropout, np.ones(3), p, training, np.random.default_rng(0),
                   call=f"dropout(ones(3), {p}, {training}, draw)")
