import numpy as np

from bottega.course.grading import close


def check_by_hand(task):
    """Three tokens in one part, one in the other."""
    parts = [(np.array([1.0, 1.0, 1.0]), np.array([True, True, True])), (np.array([5.0]), np.array([True]))]
    close(task.accumulated(parts), 2.0, 1e-9, "accumulated([([1, 1, 1], all trained), ([5], trained)])", "a token is a token, whatever part it is in")


def check_masked(task):
    """Tokens that are not trained are in no sum."""
    parts = [(np.array([9.0, 2.0]), np.array([False, True])), (np.array([9.0, 4.0]), np.array([False, True]))]
    close(task.accumulated(parts), 3.0, 1e-9, "accumulated([([9, 2], [no, yes]), ([9, 4], [no, yes])])")


def check_nothing_trained(task):
    """A part in which nothing is trained adds nothing; a batch of such parts has the loss 0."""
    empty = (np.array([9.0, 9.0]), np.array([False, False]))
    with np.errstate(all="raise"):
        close(task.accumulated([empty, (np.array([3.0]), np.array([True]))]), 3.0, 1e-9, "accumulated([nothing trained, ([3], [yes])])")
        close(task.accumulated([empty]), 0.0, 1e-9, "accumulated([nothing trained])")


def check_any_cut(task):
    """However a batch is cut, the loss is that of the whole."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        count = int(draw.integers(4, 60))
        losses, trained = draw.exponential(size=count), draw.random(count) < 0.4
        trained[0] = True
        expected = losses[trained].mean()
        cuts = np.sort(draw.choice(np.arange(1, count), size=min(3, count - 1), replace=False))
        parts = list(zip(np.split(losses, cuts), np.split(trained, cuts), strict=True))
        close(task.accumulated(parts), float(expected), 1e-9, f"accumulated of {count} tokens cut at {cuts.tolist()}")
