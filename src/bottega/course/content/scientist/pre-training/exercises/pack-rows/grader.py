import random

from bottega.course.grading import equal


def check_example(task):
    """Two documents, rows of four."""
    got = [tuple(map(list, row)) for row in task.pack([[1, 2, 3], [4, 5, 6]], 4)]
    expected = [([1, 2, 3, 4], [0, 1, 2, 0], [False, True, True, False]), ([5, 6], [0, 1], [False, True])]
    equal(got, expected, "pack([[1, 2, 3], [4, 5, 6]], 4)", "the second document goes on in the second row")


def check_nothing_lost(task):
    """Every token once, in order; every row full but the last."""
    draw = random.Random(0)
    for _ in range(40):
        length = draw.randint(2, 9)
        documents = [[draw.randint(0, 99) for _ in range(draw.randint(1, 20))] for _ in range(draw.randint(1, 8))]
        rows = task.pack(documents, length)
        call = f"pack({documents}, {length})"
        equal([token for tokens, _, _ in rows for token in tokens], sum(documents, []), call, "all tokens, in order")
        equal([len(tokens) for tokens, _, _ in rows[:-1]], [length] * (len(rows) - 1), call, "rows are full")


def check_positions_and_mask(task):
    """Positions begin at 0 with each piece, and there the token is not trained."""
    draw = random.Random(1)
    for _ in range(40):
        length = draw.randint(2, 9)
        documents = [list(range(100 * i, 100 * i + draw.randint(1, 15))) for i in range(draw.randint(1, 6))]
        for tokens, positions, mask in task.pack(documents, length):
            expected, last = [], None
            for token in tokens:
                new = last is None or token != last + 1
                expected.append(0 if new else expected[-1] + 1)
                last = token
            call = f"pack({documents}, {length})"
            equal(list(positions), expected, call, "positions of a piece are 0, 1, 2, ...")
            equal(list(mask), [place > 0 for place in expected], call, "the first token of a piece is not trained")
