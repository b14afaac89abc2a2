import random

import numpy as np

from bottega.course.grading import equal, expect


def oracle(train, test):
    categories = sorted(dict.fromkeys(train))
    tables = [np.array([[float(value == each) for each in categories] for value in part]) for part in (train, test)]
    return tuple(table.reshape(len(part), len(categories)) for table, part in zip(tables, (train, test), strict=True)), categories


def check_example(task):
    """Three cities."""
    train, test = ["Turin", "Genoa", "Turin", "Milan"], ["Milan", "Genoa", "Turin"]
    call = f"one_hot({train}, {test})"
    got = task.one_hot(list(train), list(test))
    equal(list(got[2]), ["Genoa", "Milan", "Turin"], call + "[2]", "the categories are sorted")
    equal(got[0], np.array([[0.0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]), call + "[0]")
    equal(got[1], np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]), call + "[1]")


def check_same_columns(task):
    """The test rows have the columns of the training rows, whatever they hold."""
    train = ["a", "b", "c", "d"]
    for test in (["d"], ["b", "b"], []):
        call = f"one_hot({train}, {test})[1]"
        got = task.one_hot(list(train), list(test))[1]
        expect(got.shape == (len(test), 4), f"the shape is {got.shape}, not {(len(test), 4)}: a model that learned four columns needs four", call)
        equal(got, oracle(train, test)[0][1], call, "the columns mean something else in the test than in training")


def check_unknown(task):
    """A value that training did not have gives zeros."""
    train = ["b", "d", "f"]
    for value in ("a", "c", "e", "z", ""):
        got = task.one_hot(list(train), [value, "d"])
        equal(list(got[2]), train, f"one_hot({train}, [{value!r}, 'd'])[2]", "the test rows must not add a category")
        equal(got[1], np.array([[0.0, 0, 0], [0, 1, 0]]), f"one_hot({train}, [{value!r}, 'd'])[1]",
              "an unknown value belongs to none of the columns")


def check_one_in_each_row(task):
    """Training rows hold a single 1 each."""
    draw = random.Random(3)
    for _ in range(20):
        train = [draw.choice("pqrst") for _ in range(draw.randint(1, 15))]
        got = task.one_hot(list(train), [])[0]
        equal(got.sum(axis=1), np.ones(len(train)), f"one_hot({train}, [])[0].sum(axis=1)", "each row has one category, so one 1")


def check_random(task):
    """Random columns."""
    draw = random.Random(0)
    for _ in range(60):
        train = [draw.choice(["x", "yy", "Z", "ä", "10", "9"]) for _ in range(draw.randint(1, 12))]
        test = [draw.choice(["x", "yy", "w", "Z", "100", ""]) for _ in range(draw.randint(0, 6))]
        (first, second), categories = oracle(train, test)
        got, call = task.one_hot(list(train), list(test)), f"one_hot({train}, {test})"
        equal(list(got[2]), categories, call + "[2]")
        equal(got[0], first, call + "[0]")
        equal(got[1], second, call + "[1]")
