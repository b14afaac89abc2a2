"""A linear layer with a change of low rank beside it.

The layer computes W x. With an adapter it computes W x + (alpha / r) · B (A x), where A has the shape (r, inputs) and B
(outputs, r). W is frozen. A batch x has the shape (n, inputs), one example a row.
"""

import numpy as np


def new_adapter(weight: np.ndarray, rank: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, inputs) -> A, normal with variance 1 / inputs, and B, so that the layer computes what it did before.

    Raises ValueError if the rank is below 1 or above the smaller side of the weight.
    """
    raise NotImplementedError


def forward(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """(n, inputs) -> (n, outputs), without forming the matrix B A."""
    raise NotImplementedError


def gradients(x: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of A and B, given grad (n, outputs), the gradient of the layer's output."""
    raise NotImplementedError


def merge(weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """One matrix (outputs, inputs) that computes the same. The weight that was given is not changed."""
    raise NotImplementedError


def trained(weight: np.ndarray, rank: int) -> int:
    """How many numbers the adapter trains."""
    raise NotImplementedError
