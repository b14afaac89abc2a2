import math

import numpy as np

from bottega.course.grading import close, expect


def check_two(task):
    """Two answers, three wins against one: the difference is ln 3."""
    got = task.fit(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0]), 2)
    close(got[0] - got[1], math.log(3), 1e-3, "the difference of fit([0, 0, 0, 1], [1, 1, 1, 0], 2)")


def check_mean(task):
    """The rewards have the mean 0."""
    got = task.fit(np.array([0, 1, 2, 0, 2, 1]), np.array([1, 2, 0, 2, 1, 0]), 3)
    close(float(np.mean(got)), 0.0, 1e-9, "the mean of the rewards")
    close(got, np.zeros(3), 1e-6, "fit of votes in which everybody wins and loses once against everybody")


def check_strength_of_the_opponent(task):
    """To beat a strong answer says more than to beat a weak one."""
    winners = np.array([0] * 9 + [1] + [2] * 1 + [0] * 1 + [3] * 1 + [1] * 1)
    losers = np.array([1] * 9 + [0] + [0] * 1 + [2] * 1 + [1] * 1 + [3] * 1)
    got = task.fit(winners, losers, 4)
    expect(got[2] > got[3] + 1, "answer 2 drew with the strongest, answer 3 with the weakest", "fit(…)", "reward 2 far above reward 3", [round(float(x), 3) for x in got])


def check_recovers(task):
    """From votes that were drawn by true rewards it finds these."""
    draw = np.random.default_rng(0)
    true = np.array([-1.0, -0.3, 0.2, 1.1])
    pairs = np.array([(i, j) for i in range(4) for j in range(4) if i != j])
    chosen = pairs[draw.integers(len(pairs), size=8000)]
    first = draw.random(8000) < 1 / (1 + np.exp(-(true[chosen[:, 0]] - true[chosen[:, 1]])))
    winners, losers = np.where(first, chosen[:, 0], chosen[:, 1]), np.where(first, chosen[:, 1], chosen[:, 0])
    close(task.fit(winners, losers, 4), true - true.mean(), 0.12, "fit of 8,000 votes")
