import numpy as np


def lstm_step(
    x: np.ndarray, hidden: np.ndarray, cell: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    def sigma(z):
        return 0.5 * (1 + np.tanh(z / 2))

    sums = x @ w_x.T + hidden @ w_h.T + bias
    i, f, g, o = np.split(sums, 4, axis=1)
    cell = sigma(f) * cell + sigma(i) * np.tanh(g)
    return sigma(o) * np.tanh(cell), cell


def run(xs: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray) -> np.ndarray:
    batch, length, _ = xs.shape
    hidden = cell = np.zeros((batch, w_h.shape[1]))
    states = np.zeros((batch, length, w_h.shape[1]))
    for t in range(length):
        hidden, cell = lstm_step(xs[:, t], hidden, cell, w_x, w_h, bias)
        states[:, t] = hidden
    return states


def open_forget_gate(bias: np.ndarray, value: float = 1.0) -> np.ndarray:
    size = len(bias) // 4
    opened = bias.copy()
    opened[size : 2 * size] = value
    return opened
