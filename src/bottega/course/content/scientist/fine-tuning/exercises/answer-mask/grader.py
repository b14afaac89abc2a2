import random

from bottega.course.grading import equal, expect, raises

IGNORE, END = -100, 4


def check_one(task):
    """A question and its answer."""
    ids, labels = task.encode([("user", [10, 11]), ("assistant", [20, 21])])
    call = 'encode([("user", [10, 11]), ("assistant", [20, 21])])'
    equal(list(ids), [2, 10, 11, 3, 20, 21, 4], f"{call}[0]")
    equal(list(labels), [IGNORE] * 4 + [20, 21, 4], f"{call}[1]",
          "marks and questions are read; the answer and its END are trained")


def check_turns(task):
    """Several turns, with a system's."""
    turns = [("system", [9]), ("user", [10]), ("assistant", [20]), ("user", []), ("assistant", [])]
    ids, labels = task.encode(turns)
    equal(list(ids), [1, 9, 2, 10, 3, 20, 4, 2, 3, 4], f"encode({turns})[0]")
    equal(list(labels), [IGNORE] * 5 + [20, 4, IGNORE, IGNORE, 4], f"encode({turns})[1]",
          "every turn of the assistant is trained; an empty answer is to stop at once")


def check_random(task):
    """What is trained is what assistants say, by position."""
    draw = random.Random(0)
    for _ in range(40):
        turns = [(draw.choice(["system", "user", "assistant"]), [draw.randint(1, 30) for _ in range(draw.randint(0, 5))])
                 for _ in range(draw.randint(0, 4))] + [("assistant", [7, 4, 7])]
        ids, labels = task.encode([(role, list(tokens)) for role, tokens in turns])
        equal(len(labels), len(ids), f"len(labels) of {turns}")
        said = [token for role, tokens in turns if role == "assistant" for token in (*tokens, END)]
        equal([label for label in labels if label != IGNORE], said, f"the trained labels of {turns}",
              "a token of the number END within an answer is trained too: masks go by position")


def check_errors(task):
    """Unknown roles, and conversations without an answer, are refused."""
    raises(ValueError, task.encode, [("narrator", [1]), ("assistant", [2])], call='encode([("narrator", [1]), ...])')
    raises(ValueError, task.encode, [("user", [1, 2])], call='encode([("user", [1, 2])])')
    raises(ValueError, task.encode, [], call="encode([])")


def check_batch(task):
    """Padding is neither trained nor attended to, and END is both."""
    row = ([2, 10, 3, 20, 4], [IGNORE, IGNORE, IGNORE, 20, 4])
    inputs, labels, masks = task.batch([row], 7)
    call = "batch([([2, 10, 3, 20, 4], [-100, -100, -100, 20, 4])], 7)"
    equal([list(each) for each in inputs], [[2, 10, 3, 20, 4, 4, 4]], f"{call}[0]")
    equal([list(each) for each in labels], [[IGNORE, IGNORE, IGNORE, 20, 4, IGNORE, IGNORE]], f"{call}[1]",
          "the END of the answer is trained, the padding of the same number is not")
    equal([list(each) for each in masks], [[1, 1, 1, 1, 1, 0, 0]], f"{call}[2]")


def check_cut(task):
    """Long rows are cut, and left out if nothing is left to train."""
    question = ([2, 10, 11, 12, 3, 20, 4], [IGNORE] * 5 + [20, 4])
    inputs, labels, masks = task.batch([question, question], 5)
    expect(not list(inputs) and not list(labels) and not list(masks),
           "a row whose answer was cut off trains nothing: its loss would be 0 / 0", "batch of two such rows, length 5",
           ([], [], []), (inputs, labels, masks))
    inputs, labels, masks = task.batch([question], 6)
    equal([list(each) for each in labels], [[IGNORE] * 5 + [20]], "batch of the same, length 6 [1]")
    equal([list(each) for each in masks], [[1] * 6], "batch of the same, length 6 [2]")
