import math

import numpy as np

from bottega.course.grading import close, equal, expect


def check_even(task):
    """Eight outcomes of equal chance: ln 8."""
    p = np.full(8, 1 / 8)
    close(task.cross_entropy(p, p), math.log(8), 1e-12, "cross_entropy(p, p) of eight equal chances")
    close(task.divergence(p, p), 0.0, 1e-12, "divergence(p, p)")


def check_zeros(task):
    """What never happens costs nothing."""
    p = np.array([1.0, 0.0])
    with np.errstate(all="ignore"):
        close(task.cross_entropy(p, p), 0.0, 1e-12, "cross_entropy([1, 0], [1, 0])")
        close(task.divergence(p, np.array([0.5, 0.5])), math.log(2), 1e-12, "divergence([1, 0], [0.5, 0.5])")


def check_impossible(task):
    """What happens and was held impossible costs infinitely much."""
    with np.errstate(all="ignore"):
        equal(float(task.divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0]))), math.inf, call="divergence([0.5, 0.5], [1, 0])")


def check_direction(task):
    """The divergence has a direction."""
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.8, 0.1, 0.1])
    close(task.divergence(p, q), 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(2.5), 1e-9, "divergence((½, ¼, ¼), (0.8, 0.1, 0.1))")
    close(task.divergence(q, p), 0.8 * math.log(1.6) + 0.2 * math.log(0.4), 1e-9, "divergence((0.8, 0.1, 0.1), (½, ¼, ¼))")


def check_random(task):
    """Random distributions: never negative, and zero for equal ones only."""
    draw = np.random.default_rng(2)
    for _ in range(30):
        p, q = draw.dirichlet(np.ones(5), 2)
        expected = float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        close(task.divergence(p, q), expected, 1e-9, "divergence of random distributions")
        expect(task.divergence(p, q) > 0, "not above zero", "divergence of random distributions")
