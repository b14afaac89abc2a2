"""What one generated text scores against its references. Imports no torch.

Sources: `exact_match` with its options is that of lm-evaluation-harness 0.4.13 (and of Hugging Face's `evaluate`); `em`
and `f1` are SQuAD's; ROUGE is in `rouge.py`. Of several references the best counts. BLEU, chrF and TER are of a corpus:
an item is the pair (references, prediction), which their aggregation takes.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.metrics.rouge import ROUGE
from bottega.evaluate.tasks import squad

CORPUS_METRICS = ("bleu", "chrf", "chrf++", "ter")
_SINGLE = {"em": squad.exact, "f1": squad.f1, **ROUGE}
_IGNORED = {"ignore_punctuation": string.punctuation, "ignore_numbers": string.digits}
_OPTIONS = {"ignore_case", "regexes_to_ignore", *_IGNORED}
TEXT_METRICS = ("exact_match", "contains", *_SINGLE, "rouge", *CORPUS_METRICS)


def score_text(metric: str, prediction: str, references: Sequence[str], options: Mapping[str, Any]) -> Any:
    """The value of `metric` for one answer, as its aggregation takes it.

    Args:
        metric: one of `TEXT_METRICS`; `contains` is whether a reference stands somewhere in the answer.
        prediction: the answer.
        references: right answers.
        options: of `exact_match` and `contains`: `ignore_case`, `ignore_punctuation`, `ignore_numbers` (booleans) and
            `regexes_to_ignore` (what they match is taken out first).

    Returns:
        A share in [0, 1]; for `rouge` a dictionary of the four; for `CORPUS_METRICS` (references, prediction).

    Raises:
        UserError: if the metric or an option is unknown, or there is no reference.
    """
    if metric not in TEXT_METRICS:
        raise UserError(f"{metric!r} is not a metric of generated text", hint=did_you_mean(metric, TEXT_METRICS))
    known = _OPTIONS if metric in ("exact_match", "contains") else set()
    for option in options:
        if option not in known:
            raise UserError(f"metric {metric} has no option {option!r}", hint=did_you_mean(option, known))
    if not references:
        raise UserError(f"metric {metric} needs a reference, and there is none")
    if metric in CORPUS_METRICS:
        return list(references), prediction
    if metric == "rouge":
        return {name: max(score(reference, prediction) for reference in references) for name, score in ROUGE.items()}
    if metric in _SINGLE:
        return max(_SINGLE[metric](reference, prediction) for reference in references)
    answer, wanted = _bare(prediction, options), [_bare(reference, options) for reference in references]
    return float(answer in wanted if metric == "exact_match" else any(each in answer for each in wanted))


def _bare(text: str, options: Mapping[str, Any]) -> str:
    """`text` without what the options ignore."""
    patterns = options.get("regexes_to_ignore") or []
    if isinstance(patterns, str):
        raise UserError("regexes_to_ignore must be a list of patterns", hint=f"Write [{patterns!r}].")
    for pattern in patterns:
        try:
            text = re.sub(pattern, "", text)
        except re.error as error:
            raise UserError(f"regexes_to_ignore: {pattern!r} is not a pattern: {error}") from None
    if options.get("ignore_case"):
        text = text.lower()
    for option, characters in _IGNORED.items():
        if options.get(option):
            text = text.translate(str.maketrans("", "", characters))
    return text
