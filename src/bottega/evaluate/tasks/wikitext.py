"""WikiText as language-modelling harnesses score it: tokenised pages are put back into ordinary text.

Source: Merity et al. 2016 (the corpus). The replacements, their order and their slips (the first pattern hardly ever
matches anything) are those of Megatron-LM's detokeniser, which lm-evaluation-harness uses and published perplexities
depend on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BEFORE = (("s '", "s'"),)
_NUMBERS_AND_PUNCTUATION = (
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {sign} ", f"{sign} ") for sign in ":;.!?,"),
)
_PAIRS = (
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
)
_REST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def wikitext_detokenizer(doc: dict[str, Any]) -> str:
    """The page of `doc` as ordinary text."""
    text = _replaced(doc["page"], _BEFORE)
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text)
    text = _replaced(text, _NUMBERS_AND_PUNCTUATION)
    for pattern, replacement in _PAIRS:
        text = re.sub(pattern, replacement, text)
    return _replaced(text, _REST)


def _replaced(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def process_results(doc: dict[str, Any], results: Sequence[float]) -> dict[str, tuple[float, int]]:
    """(log-likelihood in nats, number of units) by metric.

    Words and bytes are counted on the page as it stands in the corpus, so that perplexities do not depend on the
    detokeniser.
    """
    (loglikelihood,) = results
    words, size = len(re.split(r"\s+", doc["page"])), len(doc["page"].encode("utf-8"))
    return {
        "word_perplexity": (loglikelihood, words),
        "byte_perplexity": (loglikelihood, size),
        "bits_per_byte": (loglikelihood, size),
    }
