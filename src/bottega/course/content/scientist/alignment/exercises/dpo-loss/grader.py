import math

import numpy as np

from bottega.course.grading import close, expect


def _drawn(seed, n=6):
    return [-np.random.default_rng(seed + i).exponential(5.0, n) for i in range(4)]


def check_start(task):
    """Where the policy is the reference, the loss is ln 2 and every margin 0."""
    c, r, *_ = _drawn(0)
    loss, margin = task.dpo(c, r, c.copy(), r.copy(), 0.3)
    close(loss, math.log(2), 1e-9, "dpo(c, r, c, r, 0.3)[0]")
    close(margin, np.zeros(6), 1e-12, "dpo(c, r, c, r, 0.3)[1]")


def check_direction(task):
    """A chosen answer that became likelier makes the loss smaller; a rejected one larger."""
    zero, one = np.zeros(1), np.ones(1)
    up, down = task.dpo(one, zero, zero, zero, 1.0)[0], task.dpo(zero, one, zero, zero, 1.0)[0]
    expect(up < math.log(2) < down, "the loss moves the wrong way", "dpo([1], [0], [0], [0], 1), dpo([0], [1], [0], [0], 1)", "below ln 2, above ln 2", (up, down))


def check_formula(task):
    """Random pairs, and several β."""
    for beta in (0.01, 0.1, 1.0, 5.0):
        c, r, rc, rr = _drawn(int(100 * beta))
        margin = beta * ((c - rc) - (r - rr))
        got = task.dpo(c, r, rc, rr, beta)
        close(got[1], margin, 1e-9, f"dpo(…, {beta})[1]")
        close(got[0], float(np.mean([math.log1p(math.exp(-m)) if m > -30 else -m for m in margin])), 1e-9, f"dpo(…, {beta})[0]")


def check_both_may_fall(task):
    """Only the difference counts: both probabilities may fall together at no cost."""
    c, r, rc, rr = _drawn(7)
    close(task.dpo(c - 50, r - 50, rc, rr, 0.2)[0], task.dpo(c, r, rc, rr, 0.2)[0], 1e-9, "both answers e^50 times rarer")


def check_large(task):
    """Margins of a thousand give finite losses."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, _ = task.dpo(np.array([-1000.0, 0.0]), np.array([0.0, -1000.0]), np.zeros(2), np.zeros(2), 1.0)
    close(loss, 500.0, 1e-9, "dpo([-1000, 0], [0, -1000], [0, 0], [0, 0], 1)[0]")
