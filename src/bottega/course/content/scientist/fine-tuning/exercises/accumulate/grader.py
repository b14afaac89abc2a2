import math

import numpy as np

from bottega.course.grading import close, raises


def check_two(task):
    """Two parts of different sizes."""
    parts = [(2.0, np.array([4.0, 0.0]), 1), (0.5, np.array([0.0, 4.0]), 3)]
    loss, gradient = task.accumulate(parts, 100.0)
    call = "accumulate([(2.0, [4, 0], 1), (0.5, [0, 4], 3)], 100)"
    close(loss, 0.875, 1e-12, f"{call}[0]", "(2.0 · 1 + 0.5 · 3) / 4: every token has the same weight")
    close(gradient, np.array([1.0, 3.0]), 1e-12, f"{call}[1]")


def check_equal_tokens(task):
    """However the batch is cut, loss and gradient are the same."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        tokens = int(draw.integers(2, 20))
        losses, gradients = draw.random(tokens) * 3, draw.normal(size=(tokens, 3))
        cuts = np.sort(draw.choice(np.arange(1, tokens), int(draw.integers(1, min(tokens, 5))), replace=False))
        lots = np.split(np.arange(tokens), cuts)
        parts = [(float(losses[lot].mean()), gradients[lot].mean(0), len(lot)) for lot in lots]
        loss, gradient = task.accumulate(parts, 1e9)
        close(loss, float(losses.mean()), 1e-9, f"loss of parts of {[len(lot) for lot in lots]} tokens")
        close(gradient, gradients.mean(0), 1e-9, f"gradient of parts of {[len(lot) for lot in lots]} tokens")


def check_clip(task):
    """The whole gradient is clipped, once, and only if it is too long."""
    parts = [(1.0, np.array([30.0, 0.0]), 2), (1.0, np.array([-30.0, 8.0]), 2)]
    close(task.accumulate(parts, 5.0)[1], np.array([0.0, 4.0]), 1e-9, "accumulate of two gradients that nearly cancel, 5.0",
          "the sum has length 4 and is not to be clipped, however long its parts are")
    parts = [(1.0, np.array([6.0, 8.0]), 2), (1.0, np.array([6.0, 8.0]), 6)]
    close(task.accumulate(parts, 5.0)[1], np.array([3.0, 4.0]), 1e-9, "accumulate of gradients of length 10, 5.0")
    close(task.accumulate(parts, 20.0)[1], np.array([6.0, 8.0]), 1e-9, "accumulate of the same, 20.0",
          "a gradient below the limit stays as it is")
    close(task.accumulate([(1.0, np.zeros((2, 2)), 1)], 1.0)[1], np.zeros((2, 2)), 0.0, "accumulate of a zero gradient")


def check_empty(task):
    """Parts without a trained token count for nothing."""
    parts = [(math.nan, np.array([math.nan]), 0), (1.5, np.array([2.0]), 4)]
    loss, gradient = task.accumulate(parts, 10.0)
    close(loss, 1.5, 1e-12, "accumulate([(nan, [nan], 0), (1.5, [2], 4)], 10)[0]", "0 · nan is nan: leave such parts out")
    close(gradient, np.array([2.0]), 1e-12, "accumulate([(nan, [nan], 0), (1.5, [2], 4)], 10)[1]")
    raises(ValueError, task.accumulate, [(math.nan, np.array([0.0]), 0)], 1.0, call="accumulate of one empty part")
    raises(ValueError, task.accumulate, [], 1.0, call="accumulate([], 1.0)")


def check_given(task):
    """The parts are not changed."""
    first = np.array([1.0, 2.0])
    task.accumulate([(1.0, first, 1), (1.0, np.array([5.0, 5.0]), 1)], 0.1)
    close(first, np.array([1.0, 2.0]), 0.0, "the first part's gradient afterwards")
