"""Who holds which block of the cache, and which blocks hold what: reference counts and the prefix cache.

A full block is known by a hash of its tokens and of all before them (Kwon et al. 2023, arXiv:2309.06180, section 4.3;
the chain of hashes is vLLM's "automatic prefix caching"). A request that begins with the same tokens takes the
same blocks. Where several go on differently within a block, they copy what it begins with. A block that nobody holds
keeps its content until it is the one that was left longest ago.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from bottega.model.paged import BLOCK


class BlockPool:
    """The blocks 0 … count - 1. A block is held (by one request or several), kept (unheld, content known) or empty."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._holders = [0] * count
        self._empty = deque(range(count))
        self._kept: OrderedDict[int, None] = OrderedDict()  # the longest unheld first
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._beginning: dict[bytes, int] = {}
        self._beginnings_of: dict[int, list[bytes]] = {}

    @property
    def free(self) -> int:
        """Blocks that can be taken."""
        return len(self._empty) + len(self._kept)

    def take(self) -> int:
        """A block to write to; there must be a free one. What was kept in it is forgotten."""
        if self._empty:
            block = self._empty.popleft()
        else:
            block, _ = self._kept.popitem(last=False)
            if block in self._hash_of:
                del self._block_of[self._hash_of.pop(block)]
            for hash_ in self._beginnings_of.pop(block, ()):
                del self._beginning[hash_]
        self._holders[block] = 1
        return block

    def share(self, hash_: bytes) -> int | None:
        """The block of this content, now held by one more; None if there is none."""
        block = self._block_of.get(hash_)
        if block is None:
            return None
        self._kept.pop(block, None)
        self._holders[block] += 1
        return block

    def find(self, hashes: Iterable[bytes]) -> int:
        """How many of these blocks, from the first on, are there."""
        count = 0
        for hash_ in hashes:
            if hash_ not in self._block_of:
                break
            count += 1
        return count

    def is_kept(self, hash_: bytes) -> bool:
        """Whether a block of this content is there and nobody holds it."""
        return self._block_of.get(hash_, -1) in self._kept

    def learn(self, block: int, hash_: bytes) -> None:
        """The block is full, and this is its content. Where another has it already, that one stays the known one."""
        if hash_ not in self._block_of and block not in self._hash_of:
            self._block_of[hash_], self._hash_of[block] = block, hash_

    def learn_beginning(self, block: int, hash_: bytes) -> None:
        """The block begins with this content, whatever comes to stand behind it."""
        if hash_ not in self._beginning:
            self._beginning[hash_] = block
            self._beginnings_of.setdefault(block, []).append(hash_)

    def beginning(self, hash_: bytes) -> int | None:
        """A block that begins with this content, to be copied; it is now the last that would be taken."""
        block = self._beginning.get(hash_)
        if block in self._kept:
            self._kept.move_to_end(block)
        return block

    def release(self, block: int) -> None:
        """One holder less."""
        self._holders[block] -= 1
        if not self._holders[block]:
            if block in self._hash_of or block in self._beginnings_of:
                self._kept[block] = None
            else:
                self._empty.append(block)

    def check_integrity(self, held: Iterable[Sequence[int]]) -> None:
        """Raise AssertionError unless counts and tables agree with what the requests hold."""
        counts = [0] * self.count
        for blocks in held:
            assert len(set(blocks)) == len(blocks), "a request holds a block twice"
            for block in blocks:
                counts[block] += 1
        assert counts == self._holders, "blocks are counted wrongly"
        empty, kept = set(self._empty), set(self._kept)
        assert len(empty) == len(self._empty), "a block is empty twice"
        assert not empty & kept, "a block is empty and kept"
        unheld = {block for block, count in enumerate(counts) if not count}
        assert empty | kept == unheld, "a block is lost, or free and held"
        assert self._block_of == {hash_: block for block, hash_ in self._hash_of.items()}, "hashes and blocks disagree"
        begun = {hash_: block for block, hashes in self._beginnings_of.items() for hash_ in hashes}
        assert begun == self._beginning, "hashes of beginnings and blocks disagree"
        known = set(self._hash_of) | set(self._beginnings_of)
        assert kept <= known, "a block is kept for nothing"
        assert not empty & known, "an empty block is known"


def block_hash(before: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a full block: of its tokens, and by `before` (the hash of the block before it) of all before them."""
    return blake2b(array("q", tokens).tobytes(), key=before, digest_size=16).digest()


def root_hash(*facts: object) -> bytes:
    """What stands before a request's first block: of all that decides the content of blocks beside the tokens."""
    return blake2b(repr(facts).encode(), digest_size=16).digest()


def block_hashes(root: bytes, tokens: Sequence[int], known: Sequence[bytes] = ()) -> list[bytes]:
    """The hashes of all full blocks of `tokens`; `known` are the first of them, `root` is a `root_hash`."""
    hashes = list(known)
    for start in range(len(hashes) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
        hashes.append(block_hash(hashes[-1] if hashes else root, tokens[start : start + BLOCK]))
    return hashes
