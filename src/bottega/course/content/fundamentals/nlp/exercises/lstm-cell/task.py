"""One step of an LSTM.

The four blocks of rows of the weights belong, in this order, to: input gate, forget gate, candidate, output gate.
    i, f, o = sigma(…)        g = tanh(…)
    new cell   = f · cell + i · g
    new hidden = o · tanh(new cell)
"""

import numpy as np


def lstm_step(
    x: np.ndarray, hidden: np.ndarray, cell: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, D), hidden and cell (B, H), w_x (4H, D), w_h (4H, H), bias (4H,) -> new hidden, new cell, both (B, H)."""
    raise NotImplementedError


def run(xs: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """xs (B, T, D), from hidden and cell of zeros -> the hidden state after each step, (B, T, H)."""
    raise NotImplementedError


def open_forget_gate(bias: np.ndarray, value: float = 1.0) -> np.ndarray:
    """A copy of bias (4H,) whose forget gate's entries are `value`."""
    raise NotImplementedError
