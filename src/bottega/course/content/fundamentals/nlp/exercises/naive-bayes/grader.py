import math
import random

from bottega.course.grading import close, equal, expect

TEXTS = [["good", "food"], ["good", "good", "room"], ["bad", "food"]]
LABELS = ["pos", "pos", "neg"]


def _oracle(texts, labels, text):
    words = {word for each in texts for word in each}
    found = {}
    for label in set(labels):
        mine = [word for each, other in zip(texts, labels, strict=True) if other == label for word in each]
        prior = sum(other == label for other in labels) / len(labels)
        found[label] = math.log(prior) + sum(
            math.log((mine.count(word) + 1) / (len(mine) + len(words))) for word in text if word in words
        )
    return found


def _same(got, expected, call, why=""):
    equal(sorted(got), sorted(expected), call, "the classes differ")
    for label in sorted(expected):
        close(got[label], expected[label], 1e-9, f"{call}[{label!r}]", why)


def check_by_hand(task):
    """A case that can be computed by hand."""
    model = task.train(TEXTS, LABELS)
    _same(task.scores(model, ["good"]), {"pos": math.log(2 / 3 * 4 / 9), "neg": math.log(1 / 3 * 1 / 6)},
          "scores(train([[good, food], [good, good, room], [bad, food]], [pos, pos, neg]), ['good'])")


def check_prior(task):
    """A text without words has the classes' shares."""
    model = task.train(TEXTS, LABELS)
    _same(task.scores(model, []), {"pos": math.log(2 / 3), "neg": math.log(1 / 3)}, "scores(model, [])")


def check_unseen(task):
    """A word that no training text has changes nothing; one that the class lacks does not rule it out."""
    model = task.train(TEXTS, LABELS)
    _same(task.scores(model, ["zebra", "bad"]), _oracle(TEXTS, LABELS, ["bad"]), "scores(model, ['zebra', 'bad'])")
    got = task.scores(model, ["bad", "good"])
    expect(all(math.isfinite(each) for each in got.values()), "a class is ruled out by one word", "scores(model, ['bad', 'good'])",
           "finite scores", got)


def check_long_text(task):
    """A text of five thousand words has scores too."""
    model = task.train(TEXTS, LABELS)
    text = ["good", "food", "bad"] * 1700
    _same(task.scores(model, text), _oracle(TEXTS, LABELS, text), "scores(model, ['good', 'food', 'bad'] * 1700)",
          "add logarithms; a product of so many probabilities is 0")


def check_random(task):
    """Random texts get the right scores."""
    draw = random.Random(0)
    for _ in range(30):
        count = draw.randint(3, 9)
        texts = [[draw.choice("abcdef") for _ in range(draw.randint(1, 6))] for _ in range(count)]
        labels = [draw.choice(["x", "y", "z"]) for _ in range(count)]
        text = [draw.choice("abcdefg") for _ in range(draw.randint(1, 8))]
        model = task.train(texts, labels)
        _same(task.scores(model, text), _oracle(texts, labels, text), f"scores(train({texts}, {labels}), {text})")


def check_classify(task):
    """The highest score wins, and of equal ones the first in the alphabet."""
    model = task.train(TEXTS, LABELS)
    equal(task.classify(model, ["bad", "bad"]), "neg", "classify(model, ['bad', 'bad'])")
    equal(task.classify(model, ["good"]), "pos", "classify(model, ['good'])")
    even = task.train([["a"], ["a"]], ["y", "x"])
    equal(task.classify(even, ["a"]), "x", "classify(train([[a], [a]], [y, x]), ['a'])")
