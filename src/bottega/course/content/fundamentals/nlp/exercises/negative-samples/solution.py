import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def loss_and_gradients(centre: np.ndarray, context: np.ndarray, negatives: np.ndarray):
    loss = np.logaddexp(0, -(context @ centre)) + np.logaddexp(0, negatives @ centre).sum()
    error = sigmoid(context @ centre) - 1
    samples_error = sigmoid(negatives @ centre)
    return loss, error * context + samples_error @ negatives, error * centre, np.outer(samples_error, centre)
