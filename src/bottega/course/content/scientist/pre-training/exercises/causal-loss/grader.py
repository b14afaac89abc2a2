import math

import numpy as np

from bottega.course.grading import close, expect


def check_new_model(task):
    """Equal logits give ln V."""
    for size in (2, 10, 85):
        got = task.causal_loss(np.zeros((5, size)), np.arange(5) % size, np.ones(5, bool))
        close(got, math.log(size), 1e-9, f"causal_loss(zeros(5, {size}), ...)", "every token has the same chance")


def check_shift(task):
    """A model that knows the next token has almost no loss; one that repeats the last has much."""
    tokens = np.array([3, 1, 4, 1, 5, 2])
    knows, repeats = np.zeros((6, 6)), np.zeros((6, 6))
    knows[np.arange(5), tokens[1:]] = 30.0
    repeats[np.arange(6), tokens] = 30.0
    mask = np.ones(6, bool)
    got = task.causal_loss(knows, tokens, mask)
    expect(got < 1e-6, "row t must be held against token t + 1", "causal_loss(logits that know the next token)", "about 0", got)
    got = task.causal_loss(repeats, tokens, mask)
    expect(got > 10, "repeating the token just read is no prediction", "causal_loss(logits that repeat)", "above 10", got)


def check_mask(task):
    """Only tokens whose mask is True count, and they alone are divided by."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        length, size = int(draw.integers(3, 12)), int(draw.integers(2, 9))
        logits, tokens = draw.normal(size=(length, size)) * 3, draw.integers(0, size, length)
        mask = draw.random(length) < 0.6
        mask[-1] = True
        losses = []
        for t in range(length - 1):
            if mask[t + 1]:
                row = logits[t] - logits[t].max()
                losses.append(-(row[tokens[t + 1]] - math.log(np.exp(row).sum())))
        close(task.causal_loss(logits, tokens, mask), sum(losses) / len(losses), 1e-9,
              f"causal_loss(logits, {tokens.tolist()}, {mask.tolist()})")


def check_large_logits(task):
    """Large logits do not overflow."""
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0], [0.0, 0.0]])
    close(task.causal_loss(logits, np.array([0, 0, 1]), np.ones(3, bool)), 0.0, 1e-9, "causal_loss of logits of 1000",
          "subtract the largest logit before exp")
