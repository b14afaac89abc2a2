"""Train a byte-pair encoding.

Begin with the bytes of the text. Then, `count` times: find the pair of neighbouring tokens that occurs most often (of
several, the one that occurs first in the text), give it the next free id (256, 257, ...), and replace it everywhere,
from left to right. Stop early when no two tokens are left.
"""


def bpe_train(text: str, count: int) -> dict[tuple[int, int], int]:
    """The merges in the order in which they were made: pair -> new id."""
    raise NotImplementedError
