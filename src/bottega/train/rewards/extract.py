r"""What of an answer counts, and when two answers are the same.

Only the last match counts: who lists every possible answer has said but the last one. It is then compared whole, so
that "#### 42 or 43" is neither 42 nor 43. Equality by value is in the spirit of GSM8K's checker (Cobbe et al. 2021,
arXiv:2110.14168): thousands' commas, a currency sign before and a per cent sign or full stop behind are no part of a
number. `boxed` is MATH's `\boxed{…}` (Hendrycks et al. 2021, arXiv:2103.03874), braces balanced.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from fractions import Fraction

_NUMBER = re.compile(r"[-+−]?\s*[$€£¥]?\s*((?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?)(?:\s*/\s*(\d+))?\s*%?", re.ASCII)
_LOOSE = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)  # a tag in a tag would cost the square
_GSM8K = re.compile(r"####(.*)")
MOST_DIGITS = 200  # of a number that is read as one


def extractor(extract: str | None) -> Callable[[str], str | None]:
    """From a text to the part of it that counts; None where it is not there. Without `extract` it is the whole text."""
    match extract:
        case None:
            return str.strip
        case "boxed":
            return boxed
        case "gsm8k":
            return _last_match(_GSM8K)
        case "answer_tag":
            return _last_match(_TAG)
        case "code":
            return _last_match(_FENCE, strip=False)
        case "last_number":
            return _last_match(_LOOSE)
    return _last_match(re.compile(extract))


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}`; None if there is none, or it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start, depth = start + len("\\boxed{"), 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place].strip()
    return None


def same(answer: str, right: str, *, numbers: bool = True, ignore_case: bool = True) -> bool:
    """Whether the whole of both says the same: white space aside, and by value where both are numbers."""
    if numbers:
        left, wanted = number_of(answer), number_of(right)
        if left is not None and wanted is not None:
            return left == wanted
    one, other = (" ".join(text.split()).removesuffix(".") for text in (answer, right))
    return one.casefold() == other.casefold() if ignore_case else one == other


def number_of(text: str) -> Fraction | None:
    """The number that the text is, exactly; None if it is anything else, or more."""
    text = text.strip().removesuffix(".")
    match = _NUMBER.fullmatch(text) if len(text) <= MOST_DIGITS else None
    if match is None or not match[1]:
        return None
    whole = Fraction(match[1].replace(",", ""))
    if match[2] is not None:
        if not int(match[2]):
            return None
        whole /= int(match[2])
    return -whole if text[0] in "-−" else whole


def _last_match(pattern: re.Pattern[str], *, strip: bool = True) -> Callable[[str], str | None]:
    def find(text: str) -> str | None:
        matches = deque(pattern.finditer(text), maxlen=1)
        if not matches:
            return None
        last = matches[0]
        found = last[1] if pattern.groups else last[0]
        return None if found is None else found.strip() if strip else found

    return find
