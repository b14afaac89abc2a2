import math

import numpy as np

from bottega.course.grading import close, equal, expect


def _case(draw):
    words, size, k = int(draw.integers(3, 8)), int(draw.integers(1, 5)), int(draw.integers(0, 6))
    centre, context = draw.normal(size=(2, words, size))
    return centre, context, int(draw.integers(words)), int(draw.integers(words)), draw.integers(0, words, k)


def _loss(centre, context, word, neighbour, negatives):
    total = math.log(1 + math.exp(-float(centre[word] @ context[neighbour])))
    return total + sum(math.log(1 + math.exp(float(centre[word] @ context[n]))) for n in negatives)


def _measured(case, which):
    centre, context, word, neighbour, negatives = case
    tables = [centre.copy(), context.copy()]
    found = np.zeros_like(tables[which])
    for place in np.ndindex(*found.shape):
        ends = []
        for sign in (1, -1):
            tables[which][place] += sign * 1e-5
            ends.append(_loss(*tables, word, neighbour, negatives))
            tables[which][place] -= sign * 1e-5
        found[place] = (ends[0] - ends[1]) / 2e-5
    return found


def check_loss(task):
    """The loss is right; with vectors of zeros it is (k + 1) ln 2."""
    for k in (0, 1, 5):
        got, _, _ = task.skip_gram(np.zeros((4, 3)), np.zeros((4, 3)), 0, 1, np.full(k, 2))
        close(got, (k + 1) * math.log(2), 1e-9, f"loss of vectors of zeros with {k} negatives")
    draw = np.random.default_rng(0)
    for _ in range(20):
        case = _case(draw)
        close(task.skip_gram(*case)[0], _loss(*case), 1e-9, f"loss with word {case[2]}, neighbour {case[3]}, negatives {case[4].tolist()}")


def check_centre(task):
    """The gradient by the centre vectors is the measured slope."""
    draw = np.random.default_rng(1)
    for _ in range(15):
        case = _case(draw)
        close(task.skip_gram(*case)[1], _measured(case, 0), 1e-6,
              f"gradient by centre, word {case[2]}, neighbour {case[3]}, negatives {case[4].tolist()}")


def check_context(task):
    """The gradient by the context vectors is the measured slope, for different words."""
    draw = np.random.default_rng(2)
    for _ in range(10):
        centre, context = draw.normal(size=(2, 6, 3))
        case = (centre, context, 0, 1, np.array([2, 4, 5]))
        close(task.skip_gram(*case)[2], _measured(case, 1), 1e-6, "gradient by context, word 0, neighbour 1, negatives [2, 4, 5]")


def check_repeated(task):
    """A word that is drawn twice, or is the neighbour itself, gets the sum."""
    draw = np.random.default_rng(3)
    for negatives in ([2, 2], [1, 3], [2, 2, 2, 1]):
        centre, context = draw.normal(size=(2, 5, 3))
        case = (centre, context, 0, 1, np.array(negatives))
        close(task.skip_gram(*case)[2], _measured(case, 1), 1e-6, f"gradient by context, word 0, neighbour 1, negatives {negatives}",
              "`array[indices] += values` adds only once where an index is repeated")


def check_large(task):
    """Scores of a thousand do not overflow."""
    centre, context = np.array([[1000.0], [0.0]]), np.array([[0.0], [1.0]])
    with np.errstate(over="raise", invalid="raise"):
        got, by_centre, _ = task.skip_gram(centre, context, 0, 1, np.array([1]))
    close(got, 1000.0, 1e-9, "loss of a score of 1000, once as neighbour and once as negative")
    close(by_centre, np.array([[1.0], [0.0]]), 1e-9, "its gradient by centre")


def check_arguments(task):
    """The arguments stay as they are, and the results have their shapes."""
    case = _case(np.random.default_rng(4))
    before = case[0].copy(), case[1].copy()
    _, by_centre, by_context = task.skip_gram(*case)
    expect(np.array_equal(before[0], case[0]) and np.array_equal(before[1], case[1]), "an argument was changed")
    equal([np.shape(by_centre), np.shape(by_context)], [case[0].shape] * 2, "shapes of the gradients")
