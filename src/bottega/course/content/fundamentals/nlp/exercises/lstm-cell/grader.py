import numpy as np

from bottega.course.grading import close


def _given(seed, batch, d, n):
    draw = np.random.default_rng(seed)
    return [draw.normal(size=shape) for shape in ((batch, d), (batch, n), (batch, n), (4 * n, d), (4 * n, n), (4 * n,))]


def check_open_and_shut(task):
    """With the forget gate open and the input shut, the cell stays as it is."""
    n = 3
    x, h, c = np.zeros((2, 1)), np.zeros((2, n)), np.array([[5.0, -4.0, 0.5]] * 2)
    b = np.repeat([-50.0, 50.0, 0.0, 50.0], n)
    shown, kept = task.lstm_cell(x, h, c, np.zeros((4 * n, 1)), np.zeros((4 * n, n)), b)
    close(kept, c, 1e-9, "lstm_cell(…)[1] with f = 1, i = 0")
    close(shown, np.tanh(c), 1e-9, "lstm_cell(…)[0] with o = 1")


def check_content(task):
    """With the input open and all forgotten, the cell is the content, which may be negative."""
    n = 2
    b = np.array([50.0, 50.0, -50.0, -50.0, -2.0, 1.0, 50.0, 50.0])
    _, kept = task.lstm_cell(np.zeros((1, 1)), np.zeros((1, n)), np.ones((1, n)), np.zeros((4 * n, 1)), np.zeros((4 * n, n)), b)
    close(kept, np.tanh([[-2.0, 1.0]]), 1e-9, "lstm_cell(…)[1] with f = 0, i = 1")


def check_like_torch(task):
    """Random weights: the numbers are those of torch.nn.LSTMCell."""
    import torch

    for seed, (batch, d, n) in enumerate(((1, 1, 1), (3, 4, 2), (2, 5, 7))):
        x, h, c, w_x, w_h, b = _given(seed, batch, d, n)
        cell = torch.nn.LSTMCell(d, n).double()
        with torch.no_grad():
            for name, value in (("weight_ih", w_x), ("weight_hh", w_h), ("bias_ih", b), ("bias_hh", 0 * b)):
                getattr(cell, name).copy_(torch.tensor(value))
            expected = cell(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
        got = task.lstm_cell(x, h, c, w_x, w_h, b)
        for which, name in enumerate(("h", "c")):
            close(got[which], expected[which].numpy(), 1e-8, f"the new {name} for batch {batch}, d {d}, n {n}")
