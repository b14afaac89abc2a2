import math

import numpy as np

from bottega.course.grading import close, equal, expect

NAMES = ("w1", "b1", "w2", "b2")


def _case(draw):
    n, d, h, c = (int(draw.integers(1, 7)), int(draw.integers(1, 5)), int(draw.integers(1, 7)), int(draw.integers(2, 6)))
    x, labels = draw.normal(size=(n, d)), draw.integers(0, c, n)
    parameters = [draw.normal(size=(d, h)), draw.normal(size=h), draw.normal(size=(h, c)), draw.normal(size=c)]
    return x, labels, parameters


def _loss(x, labels, w1, b1, w2, b2):
    total = 0.0
    for row, label in zip(x, labels, strict=True):
        scores = np.maximum(0, row @ w1 + b1) @ w2 + b2
        total += scores.max() + math.log(np.exp(scores - scores.max()).sum()) - scores[label]
    return total / len(labels)


def check_loss(task):
    """The loss is the mean of -ln p."""
    draw = np.random.default_rng(0)
    for _ in range(20):
        x, labels, parameters = _case(draw)
        got, _ = task.mlp_gradients(x, labels, *parameters)
        close(got, _loss(x, labels, *parameters), 1e-9, f"loss of a batch of {len(labels)}")


def check_shapes(task):
    """Each gradient has the shape of its parameter."""
    draw = np.random.default_rng(1)
    for _ in range(10):
        x, labels, parameters = _case(draw)
        _, found = task.mlp_gradients(x, labels, *parameters)
        equal(sorted(found), sorted(NAMES), "the keys of the gradients")
        equal([np.shape(found[n]) for n in NAMES], [p.shape for p in parameters], "shapes of w1, b1, w2, b2")


def check_second_layer(task):
    """The gradients of the second layer are the measured slopes."""
    _slopes(task, ("w2", "b2"))


def check_first_layer(task):
    """The gradients of the first layer are the measured slopes."""
    _slopes(task, ("w1", "b1"))


def _slopes(task, names):
    draw = np.random.default_rng(2)
    for _ in range(10):
        x, labels, parameters = _case(draw)
        _, found = task.mlp_gradients(x, labels, *parameters)
        for name, parameter in zip(NAMES, parameters, strict=True):
            if name not in names:
                continue
            measured = np.zeros_like(parameter)
            for place in np.ndindex(*parameter.shape):
                kept, ends = parameter[place], []
                for sign in (1, -1):
                    parameter[place] = kept + sign * 1e-6
                    ends.append(_loss(x, labels, *parameters))
                parameter[place] = kept
                measured[place] = (ends[0] - ends[1]) / 2e-6
            close(found[name], measured, 1e-6, f"gradient of {name}, batch of {len(labels)}")


def check_large_scores(task):
    """Scores of a thousand do not overflow."""
    x, labels = np.ones((1, 1)), np.array([1])
    got, found = task.mlp_gradients(x, labels, np.array([[1000.0]]), np.zeros(1), np.array([[1.0, 0.0]]), np.zeros(2))
    close(got, 1000.0, 1e-9, "loss of scores (1000, 0), label 1")
    close(found["b2"], np.array([1.0, -1.0]), 1e-9, "gradient of b2 of scores (1000, 0), label 1")


def check_arguments(task):
    """The arguments stay as they are, and a silent neuron gets no gradient."""
    draw = np.random.default_rng(3)
    x, labels, parameters = _case(draw)
    before = [each.copy() for each in (x, *parameters)]
    task.mlp_gradients(x, labels, *parameters)
    expect(all(np.array_equal(a, b) for a, b in zip(before, (x, *parameters), strict=True)), "an argument was changed")
    _, found = task.mlp_gradients(np.zeros((2, 1)), np.array([0, 1]), np.ones((1, 1)), np.zeros(1),
                                  np.array([[1.0, -2.0]]), np.array([0.5, 0.0]))
    close(found["b1"], np.zeros(1), 1e-12, "gradient of b1 where the neuron's sum is exactly 0")
