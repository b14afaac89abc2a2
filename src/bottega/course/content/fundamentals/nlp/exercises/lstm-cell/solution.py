import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_cell(x, h, c, w_x, w_h, b):
    enter, forget, content, leave = np.split(x @ w_x.T + h @ w_h.T + b, 4, axis=-1)
    cell = sigmoid(forget) * c + sigmoid(enter) * np.tanh(content)
    return sigmoid(leave) * np.tanh(cell), cell
