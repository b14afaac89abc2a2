"""Rotary position embedding (Su et al. 2021): turn each pair of numbers of a query or key by an angle that grows with
its position. The partner of x[i] is x[i + d/2] (the layout of Hugging Face's Llama); pair i turns by
position · base^(-2i/d) radians.
"""

import numpy as np


def rotate(x: np.ndarray, positions: np.ndarray, base: float = 10000.0) -> np.ndarray:
    """(T, d) and (T,) -> (T, d), d even."""
    raise NotImplementedError
