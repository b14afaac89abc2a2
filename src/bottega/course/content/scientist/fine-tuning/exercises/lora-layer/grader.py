import numpy as np

from bottega.course.grading import close, equal, expect


def _drawn(seed, d_in=5, d_out=4, r=2):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(3, d_in)), draw.normal(size=(d_out, d_in)), draw.normal(size=(r, d_in)), draw.normal(size=(d_out, r))


def check_start(task):
    """At the start the layer gives exactly what it gave before, and A can learn."""
    a, b = task.start(6, 5, 3)
    equal(np.asarray(a).shape, (3, 6), call="start(6, 5, 3)[0].shape")
    equal(np.asarray(b).shape, (5, 3), call="start(6, 5, 3)[1].shape")
    expect(not np.any(b), "B is not zero", "start(6, 5, 3)[1]", 0, float(np.abs(b).max()))
    expect(bool(np.all(np.asarray(a) != 0)), "A has zeros", "start(6, 5, 3)[0]")
    x, w, *_ = _drawn(0, 6, 5)
    equal(task.forward(x, w, a, b, 16.0), x @ w.T, call="forward(x, w, *start(6, 5, 3), 16)", why="the detour must be exactly nothing")


def check_forward(task):
    """With numbers small enough for a pencil."""
    got = task.forward(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]), np.array([[10.0]]), 2.0)
    close(got, np.array([[61.0]]), 1e-9, "forward([[1, 2]], [[1, 0]], [[1, 1]], [[10]], 2)")


def check_scale(task):
    """The factor is alpha over the rank."""
    for r in (1, 2, 4):
        x, w, a, b = _drawn(r, r=r)
        expected = x @ w.T + 8.0 / r * (x @ a.T @ b.T)
        close(task.forward(x, w, a, b, 8.0), expected, 1e-9, f"forward(…, alpha=8) with r = {r}")


def check_merged(task):
    """The merged matrix does the same in one product."""
    for seed, shape in enumerate(((5, 4, 2), (3, 7, 1), (6, 6, 3))):
        x, w, a, b = _drawn(seed, *shape)
        close(x @ task.merged(w, a, b, 3.0).T, x @ w.T + 3.0 / shape[2] * (x @ a.T @ b.T), 1e-9, f"x @ merged(…).T for shapes {shape}")


def check_nothing_else_changes(task):
    """The frozen matrix stays as it is."""
    x, w, a, b = _drawn(9)
    before = w.copy()
    task.forward(x, w, a, b, 4.0)
    task.merged(w, a, b, 4.0)
    equal(w, before, call="w after forward and merged", why="merging makes a new matrix")
