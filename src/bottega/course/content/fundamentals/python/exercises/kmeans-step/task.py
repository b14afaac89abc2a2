"""One step of k-means, without a loop over the points."""

import numpy as np


def kmeans_step(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(n, d) points and (k, d) centres -> (n,) labels, (k, d) new centres, and the inertia.

    A point's label is the number of its nearest centre, the lowest of several. A new centre is the mean of the points
    with its label, in floats; a centre without points stays where it is. The inertia is the sum of the points' squared
    distances to the centres that were *given*. Loops over the centres are fine, loops over the points are too slow.
    The centres that were given are not changed.
    """
    raise NotImplementedError
