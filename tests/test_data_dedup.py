from __future__ import annotations

import ast
import re

import numpy as np

from bottega.data import dedup
from bottega.data.blocks import paragraphs, python_blocks, without


def plain_jaccard(a: str, b: str) -> float:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    return len(runs(a) & runs(b)) / len(runs(a) | runs(b))


def test_similarity_equals_that_of_sets_of_words() -> None:
    a = "The quick brown fox jumps over the lazy dog, and then it sleeps. The quick brown fox jumps over it again."
    b = a.replace("sleeps", "eats").upper()
    assert dedup.jaccard(dedup.shingles(a), dedup.shingles(b)) == plain_jaccard(a, b)
    assert 0 < plain_jaccard(a, b) < 1
    assert dedup.jaccard(dedup.shingles(a), dedup.shingles(a)) == 1


def test_near_duplicates_are_those_of_brute_force() -> None:
    random = np.random.default_rng(5)
    vocabulary = [f"word{i}" for i in range(400)]
    originals = [random.choice(vocabulary, 80).tolist() for _ in range(150)]
    blocks = []
    for words in originals:
        changed = list(words)
        for at in random.choice(80, random.integers(0, 9), replace=False):
            changed[at] = "changed"
        blocks.append(" ".join(changed))
    heldout = [" ".join(words) for words in originals]
    similarity = [max(plain_jaccard(block, other) for other in heldout) for block in blocks]
    expected = [number for number, value in enumerate(similarity) if value >= dedup.THRESHOLD]
    index = dedup.HeldoutIndex()
    index.add(heldout[:70])
    index.add(heldout[70:])
    found = index.find(blocks)
    assert 20 < len(expected) < 130
    assert set(found) <= set(expected)
    # One pair in 700 may be missed at the threshold itself.
    assert len(expected) - len(found) <= 1
    assert all(number in found for number, value in enumerate(similarity) if value > 0.85)


def test_short_blocks_and_an_empty_index_match_nothing() -> None:
    index = dedup.HeldoutIndex()
    assert index.find(["one two three four five six seven eight nine ten eleven twelve thirteen"]) == []
    index.add(["def close(self): self.file.close()"])
    assert index.find(["def close(self): self.file.close()"]) == []


def test_blocks_cover_the_source_and_can_be_dropped() -> None:
    text = '''"""Module text."""

# A comment
import os


class A:
    """Class text."""

    @property
    def f(self):
        """Inner text."""
        return 1


if os:
    def g(): pass
'''
    blocks = python_blocks(text, ast.parse(text))
    found = {(block.first, block.last) for block in blocks}
    assert {(1, 1), (8, 8), (10, 13), (12, 12), (17, 17), (3, 4)} <= found
    covered = {number for block in blocks for number in range(block.first, block.last + 1)}
    assert all(number in covered for number, line in enumerate(text.split("\n"), 1) if line.strip())
    method = next(block for block in blocks if block.first == 10)
    assert "def f" not in without(text, [method])
    assert "def g" in without(text, [method])
    assert [block.text for block in paragraphs("a\nb\n\n\nc")] == ["a\nb", "c"]
