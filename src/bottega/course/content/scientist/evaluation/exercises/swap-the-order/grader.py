import random

from bottega.course.grading import close, raises

F, S = "first", "second"


def check_clear(task):
    """A judge that sees the answers: A wins in both orders."""
    close(list(task.judged([(F, S), (F, S)])), [1.0, 0.0], 1e-12, "judged([(first, second)] * 2)")
    close(list(task.judged([(S, F)])), [0.0, 0.0], 1e-12, "judged([(second, first)])")


def check_place(task):
    """A judge that sees the place only: nobody wins, and the advantage is ½."""
    close(list(task.judged([(F, F)] * 3)), [0.5, 0.5], 1e-12, "judged([(first, first)] * 3)")
    close(list(task.judged([(S, S)])), [0.5, -0.5], 1e-12, "judged([(second, second)])")


def check_mixed(task):
    """Some of each."""
    close(list(task.judged([(F, S), (F, F), (S, F), (F, F)])), [0.5, 0.25], 1e-12, "judged of four pairs")
    close(list(task.judged([(F, S), (F, F), (F, F)])), [2 / 3, 1 / 3], 1e-12, "judged of three pairs")


def check_recovers(task):
    """A drawn judge: the share is A's, whatever the place is worth."""
    draw = random.Random(0)
    verdicts = []
    for _ in range(6000):
        a_better, by_place = draw.random() < 0.7, draw.random() < 0.4
        verdicts.append((F, F) if by_place else (F, S) if a_better else (S, F))
    got = task.judged(verdicts)
    close(got[0], 0.4 * 0.5 + 0.6 * 0.7, 0.03, "A's share")
    close(got[1], 0.2, 0.03, "the advantage of the first place")


def check_empty(task):
    """No pairs, no share."""
    raises(ValueError, task.judged, [], call="judged([])")
