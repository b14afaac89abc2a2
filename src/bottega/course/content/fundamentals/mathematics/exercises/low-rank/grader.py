import numpy as np

from bottega.course.grading import close, equal, expect


def check_one_product(task):
    """A column times a row has rank 1."""
    matrix = np.outer([1.0, 2.0, 3.0], [4.0, 5.0])
    rank, near = task.compress(matrix, 1e-6)
    equal(rank, 1, call="compress(outer([1, 2, 3], [4, 5]), 1e-6)[0]")
    close(near, matrix, 1e-9, "compress(outer([1, 2, 3], [4, 5]), 1e-6)[1]")


def check_diagonal(task):
    """diag(4, 3, 0.1): three fifths of the length are left out by rank 1."""
    matrix = np.diag([4.0, 3.0, 0.1])
    for error, expected in ((0.61, 1), (0.59, 2), (0.021, 2), (0.019, 3)):
        equal(task.compress(matrix, error)[0], expected, call=f"compress(diag(4, 3, 0.1), {error})[0]")
    close(task.compress(matrix, 0.1)[1], np.diag([4.0, 3.0, 0.0]), 1e-9, "compress(diag(4, 3, 0.1), 0.1)[1]")


def check_exact(task):
    """No error allowed: the matrix itself."""
    matrix = np.random.default_rng(0).normal(size=(4, 6))
    rank, near = task.compress(matrix, 0.0)
    equal(rank, 4, call="compress(random 4 × 6, 0)[0]")
    close(near, matrix, 1e-9, "compress(random 4 × 6, 0)[1]")


def check_random(task):
    """Random matrices: within the error, and one rank fewer is not."""
    draw = np.random.default_rng(1)
    for error in (0.3, 0.5, 0.8):
        matrix = draw.normal(size=(7, 5)) @ np.diag([5.0, 3, 2, 1, 0.5])
        rank, near = task.compress(matrix, error)
        length = np.linalg.norm(matrix)
        expect(np.linalg.norm(matrix - near) <= error * length * (1 + 1e-9), "farther than allowed", f"compress(…, {error})", error, float(np.linalg.norm(matrix - near) / length))
        equal(int(np.linalg.matrix_rank(near)), rank, call=f"the rank of compress(…, {error})[1]")
        s = np.linalg.svd(matrix, compute_uv=False)
        expect(rank == 1 or np.sqrt(np.sum(s[rank - 1 :] ** 2)) > error * length, "a smaller rank would do", f"compress(…, {error})[0]")
