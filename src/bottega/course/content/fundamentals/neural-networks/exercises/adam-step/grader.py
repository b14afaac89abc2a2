import numpy as np

from bottega.course.grading import close, expect, raises


def _adam(w, g, m, v, t, rate, b1, b2, epsilon):
    m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (g * g - v)
    return w - rate / (1 - b1**t) * m / ((v / (1 - b2**t)) ** 0.5 + epsilon), m, v


def check_first_step(task):
    """The first step moves each weight by the learning rate, whatever the size of its gradient."""
    for size in (1e-3, 1.0, 1e4):
        g = np.array([size, -size])
        got, _, _ = task.adam_step(np.zeros(2), g, np.zeros(2), np.zeros(2), 1, rate=0.01)
        close(got, np.array([-0.01, 0.01]), 1e-6, f"adam_step(zeros, [{size}, {-size}], zeros, zeros, 1, rate=0.01)[0]")


def check_averages(task):
    """The averages are those of the gradients and of their squares."""
    draw = np.random.default_rng(0)
    for _ in range(10):
        w, g, m, v = draw.normal(size=(4, 3))
        v, t = v**2, int(draw.integers(1, 50))
        _, first, second = task.adam_step(w, g, m, v, t)
        expected = _adam(w, g, m, v, t, 1e-3, 0.9, 0.999, 1e-8)
        close(first, expected[1], 1e-9, "the new m", "9 parts of the old to one of the gradient")
        close(second, expected[2], 1e-9, "the new v", "999 parts of the old to one of the squared gradient")


def check_twenty_steps(task):
    """Twenty steps with other settings go where Adam goes."""
    draw = np.random.default_rng(1)
    for _ in range(5):
        shape = tuple(int(n) for n in draw.integers(1, 4, 2))
        ours = draw.normal(size=shape)
        m, v = np.zeros(shape), np.zeros(shape)
        theirs, m2, v2 = ours.copy(), m.copy(), v.copy()
        for t in range(1, 21):
            g = draw.normal(size=shape) * 10 ** draw.uniform(-3, 1)
            ours, m, v = task.adam_step(ours, g, m, v, t, 0.02, 0.8, 0.95, 1e-6)
            theirs, m2, v2 = _adam(theirs, g, m2, v2, t, 0.02, 0.8, 0.95, 1e-6)
        close(ours, theirs, 1e-9, "20 steps with rate=0.02, b1=0.8, b2=0.95, epsilon=1e-6")


def check_epsilon(task):
    """epsilon stands outside the root."""
    got, _, _ = task.adam_step(np.zeros(1), np.array([1e-4]), np.zeros(1), np.zeros(1), 1, rate=1.0, epsilon=1e-4)
    close(got, np.array([-0.5]), 1e-6, "adam_step([0], [1e-4], [0], [0], 1, rate=1.0, epsilon=1e-4)[0]",
          "1e-4 / (1e-4 + 1e-4) is one half")


def check_arguments(task):
    """The arrays that are given stay as they are."""
    given = [np.full(3, 0.5) for _ in range(4)]
    task.adam_step(*given, 2)
    expect(all(np.array_equal(each, np.full(3, 0.5)) for each in given), "an array was changed in place")


def check_no_step_zero(task):
    """Step 0 is refused."""
    raises(ValueError, task.adam_step, np.zeros(1), np.ones(1), np.zeros(1), np.zeros(1), 0, call="adam_step(..., t=0)")
