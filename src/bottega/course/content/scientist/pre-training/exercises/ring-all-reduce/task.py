"""Ring all-reduce: n workers add up their gradients, and each sends only to the next one.

A gradient is cut into n pieces (here each piece is one number). In n - 1 steps pieces go round and are added to; in n - 1
further steps the complete pieces go round and replace. Write it as a simulation: nobody may use what is not its own or
was not sent to it.
"""


def ring_all_reduce(gradients: list[list[float]]) -> tuple[list[list[float]], int]:
    """n gradients of n pieces -> what each worker has in the end, and how many pieces each worker sent."""
    raise NotImplementedError
