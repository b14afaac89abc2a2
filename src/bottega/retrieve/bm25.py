"""BM25 over an inverted index (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework", §3.2–3.4).

    score(q, d) = Σ_t  idf(t) · f(t,d) (k1 + 1) / (f(t,d) + k1 (1 − b + b |d| / mean |d|))
    idf(t)      = ln(1 + (N − n(t) + 0.5) / (n(t) + 0.5))

f(t,d) counts t in d, n(t) the documents that have t. The 1 within the logarithm, as in Lucene, keeps a word that more
than half of the documents have from counting against them. What a posting adds does not depend on the query, so it is
computed once: a search sums postings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bottega.core.atomic import write_text
from bottega.core.errors import UserError
from bottega.retrieve.words import content_words

SCHEMA_VERSION = 1
MOST_POSTINGS = 1 << 27  # of an index that is read from a file


class Hit(NamedTuple):
    """A document and its score."""

    document: int
    score: float


@dataclass(frozen=True)
class Bm25:
    """The index: documents of word i are `documents[starts[i]:starts[i + 1]]`, and `weights` what each adds."""

    vocabulary: dict[str, int]
    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    count: int

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        analyse: Callable[[str], Sequence[str]] = content_words,
    ) -> Bm25:
        """Index `texts`; document i is the i-th of them.

        Args:
            texts: the documents.
            k1: how soon another occurrence of a word stops counting.
            b: how far a document's length counts, from 0 to 1.
            analyse: from a text to its words.
        """
        counts = [Counter(analyse(text)) for text in texts]
        lengths = np.array([each.total() for each in counts], dtype=np.float64)
        mean = lengths.mean() if len(lengths) and lengths.any() else 1.0
        postings: dict[str, list[tuple[int, int]]] = {}
        for document, words in enumerate(counts):
            for word, frequency in words.items():
                postings.setdefault(word, []).append((document, frequency))
        vocabulary = {word: index for index, word in enumerate(sorted(postings))}
        found = [postings[word] for word in vocabulary]
        holders = np.array([len(each) for each in found], dtype=np.int64)
        pairs = np.array([pair for each in found for pair in each], dtype=np.int64).reshape(-1, 2)
        idf = np.log1p((len(counts) - holders + 0.5) / (holders + 0.5))
        frequency = pairs[:, 1]
        norm = k1 * (1 - b + b * lengths[pairs[:, 0]] / mean)
        weights = np.repeat(idf, holders) * frequency * (k1 + 1) / (frequency + norm)
        starts = np.concatenate([[0], np.cumsum(holders)]).astype(np.int64)
        return cls(vocabulary, starts, pairs[:, 0].astype(np.int32), weights.astype(np.float32), len(counts))

    def scores(self, query: Sequence[str] | dict[str, float]) -> npt.NDArray[np.float32]:
        """The score of every document for the words of `query` (with weights, or each time that one occurs)."""
        weighted = query if isinstance(query, dict) else Counter(query)
        total = np.zeros(self.count, dtype=np.float32)
        for word, weight in weighted.items():
            index = self.vocabulary.get(word)
            if index is not None:
                part = slice(self.starts[index], self.starts[index + 1])
                total[self.documents[part]] += weight * self.weights[part]  # a document occurs once in a posting list
        return total

    def search(
        self, query: Sequence[str] | dict[str, float], top: int = 10, *, among: npt.NDArray[np.bool_] | None = None
    ) -> list[Hit]:
        """The best `top` documents that have a word of `query`; ties in the order of the documents.

        Args:
            query: the words that are searched for, as `analyse` gives them.
            top: how many documents to find at most.
            among: (documents,) which of them may be found (a filter by their metadata).
        """
        scores = self.scores(query)
        found = np.flatnonzero(scores > 0 if among is None else (scores > 0) & among)
        best = found[np.argsort(-scores[found], kind="stable")[:top]]
        return [Hit(int(each), float(scores[each])) for each in best]

    def idf(self, word: str) -> float:
        """How much a word tells: ln(1 + (N − n + 0.5) / (n + 0.5))."""
        index = self.vocabulary.get(word)
        holders = 0 if index is None else int(self.starts[index + 1] - self.starts[index])
        return float(np.log1p((self.count - holders + 0.5) / (holders + 0.5)))

    def save(self, path: Path) -> None:
        """Write `path` (JSON) and `path` + .npz."""
        np.savez(path.with_suffix(".npz"), starts=self.starts, documents=self.documents, weights=self.weights)
        words = list(self.vocabulary)
        write_text(path, json.dumps({"schema_version": SCHEMA_VERSION, "count": self.count, "words": words}))

    @classmethod
    def load(cls, path: Path) -> Bm25:
        """Read what `save` wrote; raises UserError if it is anything else."""
        try:
            data = json.loads(path.read_text("utf-8"))
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
                starts, documents, weights = arrays["starts"], arrays["documents"], arrays["weights"]
            index = cls({word: i for i, word in enumerate(data["words"])}, starts, documents, weights, data["count"])
            sound = data["schema_version"] == SCHEMA_VERSION and index._is_sound()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not an index: {error}") from None
        if not sound:
            raise UserError(f"{path} is not an index", hint="Remove it; it is made again.")
        return index

    def _is_sound(self) -> bool:
        """Whether every posting list lies within the arrays, and every document exists."""
        return (
            self.documents.dtype == np.int32
            and self.weights.dtype == np.float32
            and self.starts.dtype == np.int64
            and self.starts.shape == (len(self.vocabulary) + 1,)
            and self.documents.shape == self.weights.shape == (int(self.starts[-1]),)
            and len(self.documents) <= MOST_POSTINGS
            and int(self.starts[0]) == 0
            and bool((np.diff(self.starts) >= 0).all())
            and bool(((self.documents >= 0) & (self.documents < self.count)).all())
        )
