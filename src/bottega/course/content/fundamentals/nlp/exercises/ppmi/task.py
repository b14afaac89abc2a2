"""From counts of neighbours to what is worth knowing about them."""

import numpy as np


def ppmi(counts: np.ndarray) -> np.ndarray:
    """max(0, ln(p(w, c) / (p(w) p(c)))) for counts (W, C) of words with contexts; 0 where a count is 0.

    No row and no column is empty. W and C may differ.
    """
    raise NotImplementedError
