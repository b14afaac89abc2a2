"""Numbers that know their gradient.

Expressions of `Number` build a graph. `backward()` of the last number sets `grad` of every number in the graph to the
derivative of that last number by it.
"""

import math


class Number:
    """`data` is the value, `parents` are the numbers that it was made of, `grad` is 0.0 until backward() sets it."""

    def __init__(self, data: float, parents: tuple["Number", ...] = (), slopes: tuple[float, ...] = ()):
        # slopes[i] is the derivative of this number by parents[i]
        self.data, self.parents, self.slopes, self.grad = data, parents, slopes, 0.0

    def __add__(self, other: "Number") -> "Number":
        """self + other."""
        raise NotImplementedError

    def __mul__(self, other: "Number") -> "Number":
        """self * other."""
        raise NotImplementedError

    def tanh(self) -> "Number":
        """The hyperbolic tangent (math.tanh)."""
        raise NotImplementedError

    def backward(self) -> None:
        """Set the gradients of all numbers under this one; its own is 1.0. A second call gives the same again.

        A number that is used in several places gets the sum of what comes from each, and passes its gradient on only
        when it is complete.
        """
        raise NotImplementedError
