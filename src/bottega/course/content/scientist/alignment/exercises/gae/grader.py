import numpy as np

from bottega.course.grading import close


def check_one_token(task):
    """One token: what came, less what was expected."""
    a, r = task.gae(np.array([3.0]), np.array([1.0]), 0.9, 0.9)
    close(a, np.array([2.0]), 1e-12, "gae([3], [1], 0.9, 0.9)[0]")
    close(r, np.array([3.0]), 1e-12, "gae([3], [1], 0.9, 0.9)[1]")


def check_lambda_one(task):
    """λ = 1: all that follows, discounted, less the value."""
    rewards, values = np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.5, 0.4])
    a, _ = task.gae(rewards, values, 0.5, 1.0)
    close(a, np.array([0.25 - 0.2, 0.5 - 0.5, 1 - 0.4]), 1e-12, "gae([0, 0, 1], [0.2, 0.5, 0.4], 0.5, 1)[0]")


def check_lambda_zero(task):
    """λ = 0: one step ahead, and no farther."""
    rewards, values = np.array([1.0, 0.0, 2.0]), np.array([0.5, 1.0, 1.5])
    a, _ = task.gae(rewards, values, 0.9, 0.0)
    close(a, np.array([1 + 0.9 - 0.5, 1.35 - 1.0, 0.5]), 1e-12, "gae([1, 0, 2], [0.5, 1, 1.5], 0.9, 0)[0]")


def check_random(task):
    """Random answers: the sum written out."""
    draw = np.random.default_rng(4)
    for _ in range(20):
        n, gamma, lam = int(draw.integers(1, 9)), float(draw.random()), float(draw.random())
        rewards, values = draw.normal(size=(2, n))
        deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
        expected = np.array([sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)])
        a, r = task.gae(rewards.copy(), values.copy(), gamma, lam)
        close(a, expected, 1e-9, f"gae of {n} tokens, γ = {gamma:.2f}, λ = {lam:.2f}: advantages")
        close(r, expected + values, 1e-9, f"gae of {n} tokens, γ = {gamma:.2f}, λ = {lam:.2f}: returns")
