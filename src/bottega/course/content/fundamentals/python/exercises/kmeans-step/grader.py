import time

import numpy as np

from bottega.course.grading import close, equal, expect


def oracle(points, centres):
    labels, inertia = [], 0.0
    for point in points.tolist():
        squared = [sum((a - b) ** 2 for a, b in zip(point, centre, strict=True)) for centre in centres.tolist()]
        labels.append(squared.index(min(squared)))
        inertia += min(squared)
    moved = []
    for label, centre in enumerate(centres.tolist()):
        mine = [point for point, each in zip(points.tolist(), labels, strict=True) if each == label]
        moved.append([sum(values) / len(mine) for values in zip(*mine, strict=True)] if mine else centre)
    return np.array(labels), np.array(moved, float), inertia


def compare(task, points, centres, call, why=""):
    got, right = task.kmeans_step(points.copy(), centres.copy()), oracle(points, centres)
    equal(np.asarray(got[0]), right[0], call + "[0]", why or "the labels")
    close(got[1], right[1], 1e-9, call + "[1]", why or "the new centres")
    close(float(got[2]), right[2], 1e-9, call + "[2]", why or "the inertia, by the squared distances to the centres that were given")


def check_example(task):
    """Four points, two centres."""
    points, centres = np.array([[0.0, 0], [0, 2], [10, 0], [10, 4]]), np.array([[1.0, 1], [9, 1]])
    compare(task, points, centres, "kmeans_step([[0, 0], [0, 2], [10, 0], [10, 4]], [[1, 1], [9, 1]])")


def check_empty(task):
    """A centre without points stays where it is."""
    points, centres = np.array([[0.0, 0], [1, 1]]), np.array([[0.0, 0], [50, 50]])
    compare(task, points, centres, "kmeans_step([[0, 0], [1, 1]], [[0, 0], [50, 50]])", "nothing is near the second centre: it stays")


def check_ties(task):
    """Of several nearest centres, the first."""
    points, centres = np.array([[0.0], [4.0]]), np.array([[-2.0], [2.0], [2.0]])
    compare(task, points, centres, "kmeans_step([[0], [4]], [[-2], [2], [2]])", "the lowest label of several")


def check_whole_numbers(task):
    """Whole numbers go in, means come out."""
    points, centres = np.array([[0, 0], [1, 3], [8, 8], [9, 8]]), np.array([[0, 0], [9, 9]])
    compare(task, points, centres, "kmeans_step(whole numbers [[0, 0], [1, 3], [8, 8], [9, 8]], [[0, 0], [9, 9]])",
            "an array of whole numbers cannot hold 0.5")


def check_never_worse(task):
    """Step after step the inertia never grows, and the centres given are left alone."""
    draw = np.random.default_rng(2)
    points = draw.normal(size=(200, 3)) + 4 * draw.integers(0, 3, (200, 1))
    centres, before = points[:5].copy(), np.inf
    for step in range(15):
        given = centres.copy()
        _, moved, inertia = task.kmeans_step(points, centres)
        equal(centres, given, f"the centres given, after step {step}", "the centres given were changed")
        expect(inertia <= before + 1e-9, f"the inertia grew from {before:.6g} to {inertia:.6g}", f"step {step}")
        before, centres = inertia, moved


def check_random(task):
    """Random points and centres of several shapes."""
    draw = np.random.default_rng(0)
    for _ in range(40):
        n, k, d = draw.integers(1, 30), draw.integers(1, 6), draw.integers(1, 5)
        points, centres = draw.normal(size=(n, d)), draw.normal(size=(k, d))
        compare(task, points, centres, f"kmeans_step(points of shape {(int(n), int(d))}, centres of shape {(int(k), int(d))})")


def check_fast(task):
    """A hundred thousand points need no loop."""
    draw = np.random.default_rng(1)
    points = draw.normal(size=(100_000, 4))
    start = time.process_time()
    task.kmeans_step(points, points[:8].copy())
    took = time.process_time() - start
    expect(took < 1.0, f"{took:.1f} seconds: there is a loop over the points", "kmeans_step(points of shape (100000, 4), 8 centres)")
