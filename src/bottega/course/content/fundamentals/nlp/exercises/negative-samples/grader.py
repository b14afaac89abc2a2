import numpy as np

from bottega.course.grading import close, expect


def _draw(seed, d=4, k=3):
    draw = np.random.default_rng(seed)
    return draw.normal(size=d), draw.normal(size=d), draw.normal(size=(k, d))


def check_zero(task):
    """With zeros everywhere each of the 1 + k guesses costs ln 2."""
    loss, *_ = task.loss_and_gradients(np.zeros(3), np.zeros(3), np.zeros((4, 3)))
    close(loss, 5 * np.log(2), 1e-9, "loss_and_gradients(zeros(3), zeros(3), zeros((4, 3)))[0]")


def check_shapes(task):
    """Each gradient has the shape of what it belongs to."""
    v, u, n = _draw(0)
    _, *grads = task.loss_and_gradients(v, u, n)
    for got, wanted, name in zip(grads, (v, u, n), ("centre", "context", "negatives"), strict=True):
        expect(np.shape(got) == wanted.shape, f"the gradient of {name} has another shape", "loss_and_gradients(v, u, n)", wanted.shape, np.shape(got))


def check_finite_differences(task):
    """Each gradient is what the loss does when one number moves a little."""
    for seed in range(5):
        given = _draw(seed, d=3 + seed, k=1 + seed)
        _, *grads = task.loss_and_gradients(*given)
        for which, name in enumerate(("centre", "context", "negatives")):
            expected = np.zeros_like(given[which])
            for place in np.ndindex(expected.shape):
                losses = []
                for move in (1e-5, -1e-5):
                    moved = [each.copy() for each in given]
                    moved[which][place] += move
                    losses.append(_loss(*moved))
                expected[place] = (losses[0] - losses[1]) / 2e-5
            close(grads[which], expected, 1e-5, f"the gradient of {name}, seed {seed}")


def _loss(v, u, n):
    return np.logaddexp(0, -(u @ v)) + np.logaddexp(0, n @ v).sum()


def check_large_scores(task):
    """Scores of a thousand give finite numbers."""
    v, u = np.array([1.0]), np.array([-1000.0])
    loss, *grads = task.loss_and_gradients(v, u, np.array([[1000.0]]))
    close(loss, 2000.0, 1e-9, "loss_and_gradients([1], [-1000], [[1000]])[0]")
    expect(all(bool(np.isfinite(each).all()) for each in grads), "a gradient is not finite", "loss_and_gradients([1], [-1000], [[1000]])")
