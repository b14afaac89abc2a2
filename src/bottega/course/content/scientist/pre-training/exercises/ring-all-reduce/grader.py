import random

from bottega.course.grading import close, equal


def check_two(task):
    """Two workers."""
    got, sent = task.ring_all_reduce([[1.0, 2.0], [10.0, 20.0]])
    close([list(each) for each in got], [[11.0, 22.0], [11.0, 22.0]], 1e-9, "ring_all_reduce([[1, 2], [10, 20]])[0]")
    equal(sent, 2, "ring_all_reduce([[1, 2], [10, 20]])[1]", "one piece in each of two steps")


def check_sums(task):
    """Every worker ends with the sum of all."""
    draw = random.Random(0)
    for n in range(1, 9):
        gradients = [[draw.gauss(0, 1) for _ in range(n)] for _ in range(n)]
        got, _ = task.ring_all_reduce([list(each) for each in gradients])
        total = [sum(column) for column in zip(*gradients)]
        close([list(each) for each in got], [total] * n, 1e-9, f"ring_all_reduce of {n} workers")


def check_sent(task):
    """Each worker sends 2 (n - 1) pieces."""
    for n in range(1, 9):
        _, sent = task.ring_all_reduce([[1.0] * n for _ in range(n)])
        equal(sent, 2 * (n - 1), f"ring_all_reduce of {n} workers [1]", "n - 1 pieces to add up, n - 1 to hand round")


def check_given(task):
    """What was given is not changed."""
    given = [[1.0, 2.0, 3.0] for _ in range(3)]
    task.ring_all_reduce(given)
    equal(given, [[1.0, 2.0, 3.0] for _ in range(3)], "the argument after ring_all_reduce", "work on a copy")
