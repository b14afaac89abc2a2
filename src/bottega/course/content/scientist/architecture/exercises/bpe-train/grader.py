import random

from bottega.course.grading import equal, expect


def oracle(text, count):
    ids, merges = list(text.encode("utf-8")), {}
    for step in range(count):
        pairs = [tuple(ids[i : i + 2]) for i in range(len(ids) - 1)]
        if not pairs:
            break
        pair = sorted(set(pairs), key=lambda each: (-pairs.count(each), pairs.index(each)))[0]
        merges[pair] = 256 + step
        text_of, i = [], 0
        while i < len(ids):
            joined = tuple(ids[i : i + 2]) == pair
            text_of.append(256 + step if joined else ids[i])
            i += 2 if joined else 1
        ids = text_of
    return merges


def check_example(task):
    """The textbook example: aaabdaaabac."""
    got = task.bpe_train("aaabdaaabac", 3)
    expected = {(97, 97): 256, (256, 97): 257, (257, 98): 258}
    equal(got, expected, 'bpe_train("aaabdaaabac", 3)', "aa is the most frequent pair, then aa·a, then aaa·b")


def check_order(task):
    """The merges come in the order in which they were made."""
    got = list(task.bpe_train("low lower lowest low", 5).values())
    equal(got, [256, 257, 258, 259, 260], 'list(bpe_train("low lower lowest low", 5).values())')


def check_bytes(task):
    """Texts of every script are bytes first."""
    for text in ("éé", "漢字漢字", "naïve naïve", "🙂🙂"):
        equal(task.bpe_train(text, 2), oracle(text, 2), f"bpe_train({text!r}, 2)", "begin with the bytes of UTF-8")


def check_random(task):
    """Random texts: the same merges as a slow, plain program."""
    draw = random.Random(0)
    for _ in range(60):
        text = "".join(draw.choice("aab bc") for _ in range(draw.randint(2, 60)))
        count = draw.randint(1, 12)
        equal(task.bpe_train(text, count), oracle(text, count), f"bpe_train({text!r}, {count})")


def check_end(task):
    """It stops when nothing is left to merge."""
    equal(task.bpe_train("a", 5), {}, 'bpe_train("a", 5)')
    equal(task.bpe_train("", 5), {}, 'bpe_train("", 5)')
    expect(len(task.bpe_train("aaaa", 50)) == 2, "aaaa can be merged twice", 'bpe_train("aaaa", 50)')
