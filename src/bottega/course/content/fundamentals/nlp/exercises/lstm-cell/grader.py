import numpy as np
import torch

from bottega.course.grading import close, equal, expect


def _cell(draw, batch=None, layers=False):
    d, h = int(draw.integers(1, 5)), int(draw.integers(1, 6))
    torch.manual_seed(int(draw.integers(1000)))
    made = (torch.nn.LSTM(d, h, batch_first=True) if layers else torch.nn.LSTMCell(d, h)).double()
    w_x, w_h, b_x, b_h = (p.detach().numpy() for p in made.parameters())
    return made, d, h, w_x, w_h, b_x + b_h


def check_shapes(task):
    """Hidden state and cell have the shape (B, H)."""
    got = task.lstm_step(np.ones((5, 3)), np.zeros((5, 2)), np.zeros((5, 2)), np.ones((8, 3)), np.ones((8, 2)), np.zeros(8))
    equal([np.shape(each) for each in got], [(5, 2), (5, 2)], "shapes of lstm_step(x (5, 3), hidden (5, 2), …)")


def check_keeps(task):
    """With an open forget gate and a closed input gate the cell stays as it is."""
    bias = np.array([-50.0, 50.0, 3.0, 0.0])
    zeros = np.zeros((4, 1))
    hidden, cell = task.lstm_step(np.array([[7.0]]), np.array([[0.3]]), np.array([[1.7]]), zeros, zeros, bias)
    close(cell, np.array([[1.7]]), 1e-9, "cell 1.7, input gate shut, forget gate open", "i is the first block, f the second")
    close(hidden, np.array([[0.5 * np.tanh(1.7)]]), 1e-9, "its hidden state, output gate at one half",
          "the output is the gate times tanh of the new cell")


def check_like_torch(task):
    """One step is that of torch.nn.LSTMCell."""
    draw = np.random.default_rng(0)
    for _ in range(15):
        made, d, h, w_x, w_h, bias = _cell(draw)
        batch = int(draw.integers(1, 4))
        x, hidden, cell = draw.normal(size=(batch, d)), draw.normal(size=(batch, h)), 2 * draw.normal(size=(batch, h))
        with torch.no_grad():
            expected = made(torch.tensor(x), (torch.tensor(hidden), torch.tensor(cell)))
        got = task.lstm_step(x, hidden, cell, w_x, w_h, bias)
        close(np.asarray(got[1]), expected[1].numpy(), 1e-9, f"new cell, D = {d}, H = {h}")
        close(np.asarray(got[0]), expected[0].numpy(), 1e-9, f"new hidden state, D = {d}, H = {h}")


def check_run(task):
    """A whole sequence is that of torch.nn.LSTM."""
    draw = np.random.default_rng(1)
    for length in (1, 2, 7):
        made, d, h, w_x, w_h, bias = _cell(draw, layers=True)
        xs = draw.normal(size=(3, length, d))
        with torch.no_grad():
            expected = made(torch.tensor(xs))[0].numpy()
        close(np.asarray(task.run(xs, w_x, w_h, bias)), expected, 1e-9, f"run over {length} steps, D = {d}, H = {h}",
              "hand on both, hidden state and cell")


def check_forget_gate(task):
    """Only the forget gate's bias is set, in a copy."""
    bias = np.arange(12.0)
    got = task.open_forget_gate(bias, 5.0)
    equal(np.asarray(got), np.array([0.0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10, 11]), "open_forget_gate(arange(12.0), 5.0)")
    expect(np.array_equal(bias, np.arange(12.0)), "the bias that was given was changed")
