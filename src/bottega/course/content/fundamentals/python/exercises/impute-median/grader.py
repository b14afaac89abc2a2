import statistics

import numpy as np

from bottega.course.grading import close, equal, expect

nan = float("nan")


def oracle(train, test):
    parts = []
    for table in (train, test):
        rows = []
        for row in table.tolist():
            values = []
            for column, value in enumerate(row):
                known = [other for other in train[:, column].tolist() if other == other]
                values.append(value if value == value else (statistics.median(known) if known else 0.0))
            rows.append(values + [float(value != value) for value in row])
        parts.append(np.array(rows).reshape(len(table), 2 * train.shape[1]))
    return tuple(parts)


def check_example(task):
    """A table by hand."""
    train = np.array([[1.0, nan], [nan, 4.0], [3.0, 8.0], [100.0, 6.0]])
    test = np.array([[nan, nan], [50.0, 9.0]])
    got = task.impute_median(train.copy(), test.copy())
    call = f"impute_median({train.tolist()}, {test.tolist()})"
    close(got[0], np.array([[1, 6, 0, 1], [3, 4, 1, 0], [3, 8, 0, 0], [100, 6, 0, 0]], float), 1e-12, call,
          "the known values of the first column are 1, 3 and 100: their median is 3")
    close(got[1], np.array([[3, 6, 1, 1], [50, 9, 0, 0]], float), 1e-12, call, "the test rows get the training rows' medians, 3 and 6")


def check_test_tells_nothing(task):
    """What stands in the test rows changes nothing in the training rows, nor in the fill."""
    draw = np.random.default_rng(1)
    train = draw.normal(size=(9, 3))
    train[draw.random(train.shape) < 0.3] = nan
    plain = np.full((1, 3), nan)
    for shift in (0.0, 1000.0, -1000.0):
        test = np.concatenate([plain, np.full((20, 3), shift)])
        got, _ = task.impute_median(train.copy(), test.copy()), None
        expected = oracle(train, test)
        close(got[0], expected[0], 1e-12, f"20 test rows of {shift:g}", "the training rows changed: the medians were taken over test rows too")
        close(got[1][0], expected[1][0], 1e-12, f"20 test rows of {shift:g}", "the fill of the test rows depends on the test rows")


def check_empty_column(task):
    """A column without a known value is filled with 0."""
    train = np.array([[nan, 1.0], [nan, 2.0]])
    test = np.array([[7.0, nan], [nan, 1.0]])
    got = task.impute_median(train.copy(), test.copy())
    for mine, right in zip(got, oracle(train, test), strict=True):
        close(mine, right, 1e-12, f"impute_median({train.tolist()}, {test.tolist()})", "nothing is known of the first column in training: fill with 0")


def check_indicators(task):
    """It can still be seen which values were missing."""
    train = np.array([[1.0, 5.0], [nan, 5.0], [1.0, nan]])
    got = task.impute_median(train.copy(), train.copy())[0]
    expect(got.shape == (3, 4), f"the result has the shape {got.shape}, not (3, 4): d filled columns, then d columns that say what was missing")
    close(got[:, 2:], np.array([[0, 0], [1, 0], [0, 1]], float), 0, f"impute_median({train.tolist()}, …)[0][:, 2:]")


def check_no_rows(task):
    """A test without rows."""
    got = task.impute_median(np.array([[1.0, nan]]), np.zeros((0, 2)))
    equal(tuple(got[1].shape), (0, 4), "impute_median([[1, nan]], zeros((0, 2)))[1].shape")


def check_unchanged(task):
    """The tables that were given stay as they are."""
    train, test = np.array([[1.0, nan], [3.0, 2.0]]), np.array([[nan, nan]])
    before = train.copy(), test.copy()
    task.impute_median(train, test)
    equal((train, test), before, "the tables, after impute_median(train, test)")


def check_random(task):
    """Random tables with gaps."""
    draw = np.random.default_rng(0)
    for _ in range(40):
        rows, more, columns = draw.integers(1, 12), draw.integers(0, 8), draw.integers(1, 5)
        train, test = (np.round(draw.exponential(5, (size, columns)), 2) for size in (rows, more))
        for table in (train, test):
            table[draw.random(table.shape) < 0.4] = nan
        got, right = task.impute_median(train.copy(), test.copy()), oracle(train, test)
        for mine, each in zip(got, right, strict=True):
            close(mine, each, 1e-12, f"impute_median({train.tolist()}, {test.tolist()})")
