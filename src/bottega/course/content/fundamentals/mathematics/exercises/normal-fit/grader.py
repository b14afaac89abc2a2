import numpy as np

from bottega.course.grading import close, expect, raises


def check_by_hand(task):
    """1, 2, 3, 6: mean 3, squared distances 4 + 1 + 0 + 9."""
    close(np.array(task.fit(np.array([1.0, 2.0, 3.0, 6.0]))), np.array([3.0, 3.5, 14 / 3]), 1e-12, "fit([1, 2, 3, 6])")


def check_far_from_zero(task):
    """Around a hundred million the variance is the same."""
    close(np.array(task.fit(np.array([1.0, 2.0, 3.0, 6.0]) + 1e8))[1:], np.array([3.5, 14 / 3]), 1e-6, "fit([1, 2, 3, 6] + 1e8)[1:]")


def check_too_few(task):
    """Of one number no variance can be told."""
    raises(ValueError, task.fit, np.array([1.0]), call="fit([1.0])")


def check_log_likelihood(task):
    """One number at the mean of a standard normal: −½ ln 2π."""
    close(task.log_likelihood(np.array([0.0]), 0.0, 1.0), -0.9189385332046727, 1e-9, "log_likelihood([0], 0, 1)")
    close(task.log_likelihood(np.array([1.0, 3.0]), 2.0, 4.0), -np.log(8 * np.pi) - 0.25, 1e-9, "log_likelihood([1, 3], 2, 4)")


def check_likeliest(task):
    """No other mean or variance is likelier."""
    x = np.random.default_rng(0).normal(5, 3, size=40)
    mean, variance, _ = task.fit(x)
    best = task.log_likelihood(x, mean, variance)
    for other, spread in ((mean + 0.01, variance), (mean - 0.01, variance), (mean, variance * 1.01), (mean, variance * 0.99)):
        expect(task.log_likelihood(x, other, spread) < best, "another place is at least as likely", f"log_likelihood(x, {other:.3f}, {spread:.3f})", f"below {best:.6f}", task.log_likelihood(x, other, spread))
