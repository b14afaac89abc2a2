import numpy as np


def one_hot(train: list[str], test: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    categories = sorted(set(train))
    columns = {category: column for column, category in enumerate(categories)}
    return encoded(train, columns), encoded(test, columns), categories


def encoded(values, columns):
    shape = (len(values), len(columns))
    table = np.zeros(shape)
    for row, value in enumerate(values):
        column = columns.get(value)
        if column is not None:
            table[row, column] = 1.0
    return table
