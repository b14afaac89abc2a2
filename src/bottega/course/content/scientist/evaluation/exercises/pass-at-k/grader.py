from itertools import combinations

from bottega.course.grading import close, raises


def check_by_hand(task):
    """Two of four pass, two are drawn: five of six draws hold one that passes."""
    close(task.pass_at_k(4, 2, 2), 5 / 6, 1e-12, "pass_at_k(4, 2, 2)")
    close(task.pass_at_k(10, 3, 1), 0.3, 1e-12, "pass_at_k(10, 3, 1)")


def check_ends(task):
    """None passes, all pass, too few fail."""
    close(task.pass_at_k(5, 0, 3), 0.0, 1e-12, "pass_at_k(5, 0, 3)")
    close(task.pass_at_k(5, 5, 1), 1.0, 1e-12, "pass_at_k(5, 5, 1)")
    close(task.pass_at_k(5, 3, 3), 1.0, 1e-12, "pass_at_k(5, 3, 3): only two fail")


def check_counted(task):
    """Small cases: every draw counted."""
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([True] * c + [False] * (n - c), k))
                close(task.pass_at_k(n, c, k), sum(any(each) for each in draws) / len(draws), 1e-12, f"pass_at_k({n}, {c}, {k})")


def check_mean(task):
    """The mean over problems, not over programs."""
    close(task.mean_pass_at_k([(10, 10), (10, 0), (10, 0)], 5), 1 / 3, 1e-12, "mean_pass_at_k([(10, 10), (10, 0), (10, 0)], 5)")


def check_wrong(task):
    """More than were drawn cannot be asked for."""
    raises(ValueError, task.pass_at_k, 5, 1, 10, call="pass_at_k(5, 1, 10)")
    raises(ValueError, task.pass_at_k, 5, 6, 1, call="pass_at_k(5, 6, 1)")
