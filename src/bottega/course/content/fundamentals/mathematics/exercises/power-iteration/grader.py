import numpy as np

from bottega.course.grading import close, expect


def _with(values, seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return q @ np.diag(values) @ q.T


def check_diagonal(task):
    """Of a diagonal matrix it is the largest entry."""
    value, vector = task.power_iteration(np.diag([1.0, 5.0, 2.0]))
    close(value, 5.0, 1e-6, "power_iteration(diag(1, 5, 2))[0]")
    close(np.abs(vector), np.array([0.0, 1.0, 0.0]), 1e-6, "|power_iteration(diag(1, 5, 2))[1]|")


def check_negative(task):
    """The largest in magnitude may be negative."""
    value, vector = task.power_iteration(_with([-4.0, 3.0, 1.0], 1))
    close(value, -4.0, 1e-6, "power_iteration of a matrix with the eigenvalues -4, 3, 1")


def check_close_together(task):
    """Eigenvalues close together take many products."""
    matrix = _with([2.0, 1.98, 0.5], 2)
    value, vector = task.power_iteration(matrix)
    close(value, 2.0, 1e-7, "eigenvalues 2, 1.98, 0.5")
    close(matrix @ vector, 2.0 * vector, 1e-6, "A v against 2 v")


def check_random(task):
    """Random symmetric matrices: |A v − λ v| is small, v has length 1, and no eigenvalue is larger."""
    for seed in range(10):
        draw = np.random.default_rng(seed)
        a = draw.normal(size=(5, 5))
        a = a @ a.T + np.diag([3.0, 0, 0, 0, 0])
        value, vector = task.power_iteration(a)
        close(float(np.linalg.norm(vector)), 1.0, 1e-9, f"|v|, seed {seed}")
        close(value, float(np.abs(np.linalg.eigvalsh(a)).max()), 1e-6, f"λ, seed {seed}")
        expect(float(np.linalg.norm(a @ vector - value * vector)) < 1e-6, "not an eigenvector", f"|A v − λ v|, seed {seed}")
