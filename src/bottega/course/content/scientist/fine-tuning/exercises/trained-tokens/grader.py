import random

from bottega.course.grading import equal, expect

HEADERS = {"system": [1], "user": [2, 5], "assistant": [3, 5]}


def check_one_answer(task):
    """One question, one answer."""
    got = task.ids_and_labels([("user", [10, 11]), ("assistant", [20])], HEADERS, 9)
    equal(list(got[0]), [2, 5, 10, 11, 9, 3, 5, 20, 9], call="ids")
    equal(list(got[1]), [-100, -100, -100, -100, -100, -100, -100, 20, 9], call="labels")


def check_many_turns(task):
    """Every answer of a longer conversation is trained, and nothing else."""
    turns = [("system", [7]), ("user", [10]), ("assistant", [20, 21]), ("user", [11]), ("assistant", [22])]
    ids, labels = task.ids_and_labels(turns, HEADERS, 9)
    equal([each for each in labels if each != -100], [20, 21, 9, 22, 9], call="the labels that are trained")
    equal(len(ids), len(labels), call="len(ids), len(labels)")


def check_no_answer(task):
    """A conversation without an answer trains nothing; an empty answer trains the stop token."""
    _, labels = task.ids_and_labels([("user", [10])], HEADERS, 9)
    expect(set(labels) <= {-100}, "something is trained", 'ids_and_labels([("user", [10])], …)', "nothing", labels)
    _, labels = task.ids_and_labels([("assistant", [])], HEADERS, 9)
    equal(list(labels), [-100, -100, 9], call='ids_and_labels([("assistant", [])], …)[1]')


def check_random(task):
    """Random conversations: each label is its own id, and the trained ones are the assistant's."""
    draw = random.Random(1)
    for _ in range(100):
        turns = [(draw.choice(["user", "assistant", "system"]), [draw.randint(10, 40) for _ in range(draw.randint(0, 5))]) for _ in range(draw.randint(1, 6))]
        ids, labels = task.ids_and_labels(turns, HEADERS, 9)
        expect(all(label in (-100, each) for each, label in zip(ids, labels, strict=True)), "a label is another token's", f"ids_and_labels({turns}, …)", ids, labels)
        wanted = [each for role, content in turns if role == "assistant" for each in (*content, 9)]
        equal([each for each in labels if each != -100], wanted, call=f"ids_and_labels({turns}, …)")
