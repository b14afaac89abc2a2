import numpy as np

from bottega.course.grading import close, equal, expect


def cases():
    draw = np.random.default_rng(0)
    for seed in range(30):
        rows, columns = int(draw.integers(8, 60)), int(draw.integers(1, 6))
        table = draw.normal(size=(rows, columns)) * draw.uniform(0.1, 50, columns) + draw.uniform(-20, 20, columns)
        share = float(draw.choice([0.2, 0.25, 0.5]))
        yield table, share, seed, f"train_test_scale(X of shape {table.shape}, {share}, {seed})"


def check_split(task):
    """Every row is in one part, and the parts have their sizes."""
    for table, share, seed, call in cases():
        train, test, train_rows, test_rows = task.train_test_scale(table.copy(), share, seed)
        equal(len(test_rows), round(share * len(table)), call, "the number of test rows")
        equal(sorted([*map(int, train_rows), *map(int, test_rows)]), list(range(len(table))), call,
              "each row must be in exactly one of the two parts")
        expect(len(train) == len(train_rows) and len(test) == len(test_rows), "rows and their places differ in number", call)


def check_by_chance(task):
    """The split is drawn with the seed."""
    table = np.arange(80.0).reshape(40, 2)
    first, again, other = (np.asarray(task.train_test_scale(table.copy(), 0.25, seed)[3]) for seed in (1, 1, 2))
    equal(sorted(first.tolist()), sorted(again.tolist()), "train_test_scale(X, 0.25, 1), twice", "the same seed must give the same split")
    expect(set(first.tolist()) != set(other.tolist()), "seeds 1 and 2 give the same test rows: tables are often sorted, so the split must be drawn",
           "train_test_scale(X, 0.25, seed)")
    np.random.seed(7)
    once = np.asarray(task.train_test_scale(table.copy(), 0.25, 1)[3])
    equal(sorted(once.tolist()), sorted(first.tolist()), "train_test_scale(X, 0.25, 1), after np.random.seed(7)")


def check_training_rows(task):
    """The training rows have mean 0 and standard deviation 1."""
    for table, share, seed, call in cases():
        train = task.train_test_scale(table.copy(), share, seed)[0]
        close(train.mean(axis=0), np.zeros(table.shape[1]), 1e-9, call, "the means of the training rows: those of all rows were taken?")
        close(train.std(axis=0), np.ones(table.shape[1]), 1e-9, call, "the standard deviations of the training rows")


def check_test_rows(task):
    """The test rows are scaled by the training rows' numbers."""
    for table, share, seed, call in cases():
        _, test, train_rows, test_rows = task.train_test_scale(table.copy(), share, seed)
        known = table[train_rows]
        close(test, (table[test_rows] - known.mean(axis=0)) / known.std(axis=0), 1e-9, call,
              "a test row must be scaled as any later row will be: with the training rows' mean and deviation")


def check_constant(task):
    """A constant column becomes zeros, not nan."""
    for value in (3.0, 0.1, 0.0):
        table = np.column_stack([np.full(12, value), np.arange(12.0)])
        train, test, _, _ = task.train_test_scale(table.copy(), 0.25, 0)
        for part in (train, test):
            close(part[:, 0], np.zeros(len(part)), 1e-9, f"a column of {value}: train_test_scale(X, 0.25, 0)",
                  "a standard deviation of 0 cannot be divided by")


def check_unchanged(task):
    """X stays as it is."""
    table = np.random.default_rng(5).normal(size=(10, 2)) + 4
    before = table.copy()
    task.train_test_scale(table, 0.3, 0)
    equal(table, before, "X, after train_test_scale(X, 0.3, 0)")
