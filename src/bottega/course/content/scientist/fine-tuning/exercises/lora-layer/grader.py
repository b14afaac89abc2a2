import numpy as np

from bottega.course.grading import close, equal, expect, raises


def _cases(seed, count):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        outputs, inputs, n = (int(k) for k in draw.integers(2, 12, 3))
        rank = int(draw.integers(1, min(outputs, inputs) + 1))
        weight, x = draw.normal(size=(outputs, inputs)), draw.normal(size=(n, inputs))
        a, b = draw.normal(size=(rank, inputs)), draw.normal(size=(outputs, rank))
        yield weight, x, a, b, float(draw.choice([1.0, 8.0, 16.0])), draw


def check_new(task):
    """A new adapter changes nothing, and can learn."""
    for weight, x, _, b, alpha, draw in _cases(0, 30):
        rank = b.shape[1]
        first, second = task.new_adapter(weight, rank, draw)
        call = f"new_adapter(weight {weight.shape}, rank {rank}, rng)"
        equal((first.shape, second.shape), ((rank, weight.shape[1]), (weight.shape[0], rank)), f"shapes of {call}")
        close(second @ first, np.zeros_like(weight), 1e-12, f"B A of {call}", "before the first step the layer computes W x")
        expect(np.abs(first).max() > 0, "if A and B are both zero, both gradients are zero for ever", call)


def check_variance(task):
    """A is drawn with variance 1 / inputs."""
    for inputs in (50, 400):
        a, _ = task.new_adapter(np.zeros((60, inputs)), 50, np.random.default_rng(inputs))
        got = float(a.var() * inputs)
        expect(0.8 < got < 1.2, "the variance of A times the inputs is 1", f"A for {inputs} inputs", 1.0, got)


def check_rank(task):
    """A rank that does not fit is refused."""
    for rank in (0, -1, 4, 9):
        raises(ValueError, task.new_adapter, np.ones((3, 5)), rank, np.random.default_rng(0),
               call=f"new_adapter(weight (3, 5), {rank}, rng)")


def check_forward(task):
    """W x + (alpha / r) B A x."""
    got = task.forward(np.array([[1.0, 2.0]]), np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0]]), np.eye(2), 6.0)
    close(got, np.array([[4.0, 8.0]]), 1e-12, "forward of x = [1, 2] with W, A and B the identity, alpha 6",
          "x + 6 / 2 · x = 4 x")
    for weight, x, a, b, alpha, _ in _cases(1, 40):
        expected = np.stack([weight @ row + alpha / len(a) * (b @ (a @ row)) for row in x])
        close(task.forward(x, weight, a, b, alpha), expected, 1e-9, f"forward with r = {len(a)}, alpha = {alpha:g}")


def check_gradients(task):
    """Gradients are those of finite differences."""
    for weight, x, a, b, alpha, draw in _cases(2, 12):
        grad = draw.normal(size=(len(x), len(weight)))

        def loss(first, second):
            return float((grad * (alpha / len(a) * (x @ first.T @ second.T))).sum())  # noqa: B023

        expected = []
        for which in range(2):
            found = np.zeros_like((a, b)[which])
            for at in np.ndindex(found.shape):
                up, down = [a.copy(), b.copy()], [a.copy(), b.copy()]
                up[which][at] += 1e-4
                down[which][at] -= 1e-4
                found[at] = (loss(*up) - loss(*down)) / 2e-4
            expected.append(found)
        got = task.gradients(x, a, b, alpha, grad)
        close(got[0], expected[0], 1e-5, f"gradients(...)[0] with r = {len(a)}, alpha = {alpha:g}")
        close(got[1], expected[1], 1e-5, f"gradients(...)[1] with r = {len(a)}, alpha = {alpha:g}")


def check_merge(task):
    """The merged matrix computes the same, and the given one stays."""
    for weight, x, a, b, alpha, _ in _cases(3, 40):
        kept = weight.copy()
        got = task.merge(weight, a, b, alpha)
        close(weight, kept, 0.0, "the weight after merge", "work on a copy: the base may serve other adapters")
        expected = np.stack([weight @ row + alpha / len(a) * (b @ (a @ row)) for row in x])
        close(x @ got.T, expected, 1e-9, f"x @ merge(...).T with r = {len(a)}, alpha = {alpha:g}")


def check_count(task):
    """r (inputs + outputs) numbers are trained."""
    equal(int(task.trained(np.zeros((4096, 4096)), 8)), 65536, "trained(weight (4096, 4096), 8)")
    equal(int(task.trained(np.zeros((3, 7)), 2)), 20, "trained(weight (3, 7), 2)")
