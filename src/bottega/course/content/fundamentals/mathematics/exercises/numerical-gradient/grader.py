import numpy as np

from bottega.course.grading import close, equal


def check_quadratic(task):
    """½ (x² + 10 y²) has the gradient (x, 10 y)."""
    close(task.gradient(lambda x: 0.5 * (x[0] ** 2 + 10 * x[1] ** 2), np.array([3.0, -2.0])), np.array([3.0, -20.0]), 1e-6, "gradient of ½ (x² + 10 y²) at (3, -2)")


def check_integers(task):
    """A place that is given in integers is a place."""
    close(task.gradient(lambda x: float(np.sum(x**2)), np.array([1, 2, 3])), np.array([2.0, 4.0, 6.0]), 1e-6, "gradient of Σ x² at [1, 2, 3]")


def check_precise(task):
    """Both sides are taken: the error is tiny even where the function bends."""
    x = np.array([0.7, 1.3])
    close(task.gradient(lambda x: float(np.exp(3 * x[0]) * x[1] ** 3), x), np.array([3 * np.exp(2.1) * 1.3**3, np.exp(2.1) * 3 * 1.3**2]), 1e-7, "gradient of e^(3x) y³ at (0.7, 1.3)")


def check_shape(task):
    """A matrix has a matrix of slopes, and is not changed."""
    draw = np.random.default_rng(0)
    x, c = draw.normal(size=(2, 3)), draw.normal(size=(2, 3))
    before = x.copy()
    close(task.gradient(lambda x: float(np.sum(c * np.sin(x))), x), c * np.cos(x), 1e-7, "gradient of Σ c sin x at a 2 × 3 matrix")
    equal(x, before, call="x afterwards", why="the caller's array was changed")
