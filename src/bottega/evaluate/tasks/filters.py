"""What is taken from a response before it counts: the filters of lm-evaluation-harness, by name.

A pipeline begins with the list of a document's responses; `take_first` makes one text of it. Source of the
behaviour: `lm_eval/filters` of version 0.4.13.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.tasks.documents import Doc
from bottega.evaluate.tasks.schema import Pipeline

Filter = Callable[[Any, Doc, Mapping[str, Any]], Any]
FALLBACK = "[invalid]"
ANSWER = r"#### (\-?[0-9\.\,]+)"


def apply(pipeline: Pipeline, responses: Sequence[str], doc: Doc) -> Any:
    """The responses after each step; raises UserError for a filter that is not there, or one that fails."""
    value: Any = list(responses)
    for step in pipeline.filter:
        name, options = step.get("function"), _options(step)
        try:
            value = _custom(value, doc, options) if name == "custom" else _filter(name)(value, doc, options)
        except UserError:
            raise
        except Exception as error:  # the response or the document is not what the filter takes it for
            raise UserError(f"filter {pipeline.name}: {name} fails: {type(error).__name__}: {error}") from None
    return value


def check(pipelines: Sequence[Pipeline]) -> None:
    """Raise UserError for a filter that is not there, an option it does not have, a pattern that is none."""
    for pipeline in pipelines:
        for step in pipeline.filter:
            name, options = step.get("function"), _options(step)
            if name == "custom":
                if not callable(options.get("filter_fn")):
                    raise UserError(f"filter {pipeline.name}: custom needs filter_fn: !function …")
                continue
            _filter(name)
            known = OPTIONS.get(str(name), {})
            for key, option in options.items():
                if key not in known:
                    raise UserError(f"filter {pipeline.name}: {name} has no {key!r}", hint=did_you_mean(key, known))
                if not isinstance(option, known[key]):
                    raise UserError(f"filter {pipeline.name}: {key} cannot be {option!r}")
            for pattern in (options.get("regex_pattern") or "", *(options.get("regexes_to_ignore") or ())):
                try:
                    re.compile(pattern)
                except (re.error, TypeError) as error:
                    raise UserError(f"filter {pipeline.name}: {pattern!r} is no regular expression: {error}") from None


def _options(step: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: option for key, option in step.items() if key not in ("function", "kwargs")}
    return given | (step.get("kwargs") or {})


def _custom(responses: Sequence[str], doc: Doc, options: Mapping[str, Any]) -> Any:
    """A filter that the task brings: it takes all documents' responses, here those of one."""
    try:
        return next(iter(options["filter_fn"]([responses], [doc])))
    except Exception as error:  # it is the task's code
        raise UserError(f"filter_fn fails: {type(error).__name__}: {error}") from None


def _filter(name: Any) -> Filter:
    if not isinstance(name, str) or name not in FILTERS:
        raise UserError(f"there is no filter {name!r}", hint=did_you_mean(str(name), FILTERS))
    return FILTERS[name]


def _regex(responses: Sequence[str], _doc: Doc, options: Mapping[str, Any]) -> list[str]:
    pattern = re.compile(options.get("regex_pattern", ANSWER))
    select, fallback = int(options.get("group_select", 0)), options.get("fallback", FALLBACK)
    return [_select(pattern.findall(response), select) or fallback for response in responses]


def _select(found: Sequence[Any], select: int) -> str:
    """The match at `select`; of several groups the first that is not empty; "" if there is none."""
    if not found or not -len(found) <= select < len(found):
        return ""
    match = found[select]
    if isinstance(match, tuple):
        match = next(filter(None, match), "")
    return match.strip()


def _multi_choice_regex(responses: Sequence[str], doc: Doc, options: Mapping[str, Any]) -> list[str]:
    """A letter by the pattern, else by the text of a choice, else behind a colon; always written `(A)`."""
    pattern = re.compile(options.get("regex_pattern", ANSWER))
    select, fallback = int(options.get("group_select", 0)), options.get("fallback", FALLBACK)
    letters = {chr(ord("A") + place): choice for place, choice in enumerate(doc["choices"])}
    by_text = {_plain(choice.strip(), options): f"({letter})" for letter, choice in letters.items()}
    texts = re.compile("|".join(sorted(map(re.escape, by_text), key=len, reverse=True)))
    behind_colon = re.compile(rf":[\s]*({'|'.join(letters)})")
    taken = []
    for response in responses:
        match = _select(pattern.findall(response), select)
        if not match:
            match = by_text.get(_select(texts.findall(_plain(response, options)), select), "")
        if not match and (letter := _select(behind_colon.findall(response), select)):
            match = f"({letter})"
        taken.append(match or fallback)
    return taken


def _plain(text: str, options: Mapping[str, Any]) -> str:
    for pattern in options.get("regexes_to_ignore") or ():
        text = re.sub(pattern, "", text)
    if options.get("ignore_case"):
        text = text.lower()
    if options.get("ignore_punctuation"):
        text = "".join(sign for sign in text if not unicodedata.category(sign).startswith("P"))
    return text


def _take_first_k(responses: Sequence[str], _doc: Doc, options: Mapping[str, Any]) -> list[str]:
    count = int(options.get("k", 1))
    if len(responses) < count:
        raise UserError(f"take_first_k takes {count} responses, and there are {len(responses)}", hint="Raise repeats.")
    return list(responses[:count])


FILTERS: dict[str, Filter] = {
    "take_first": lambda responses, _doc, _options: responses[0],
    "take_first_k": _take_first_k,
    "majority_vote": lambda responses, _doc, _options: [Counter(responses).most_common(1)[0][0]],
    "regex": _regex,
    "multi_choice_regex": _multi_choice_regex,
    "remove_whitespace": lambda responses, _doc, _options: [each.strip() for each in responses],
    "lowercase": lambda responses, _doc, _options: [each.lower() for each in responses],
    "uppercase": lambda responses, _doc, _options: [each.upper() for each in responses],
    "map": lambda responses, _doc, options: [
        options.get("mapping_dict", {}).get(each, options.get("default_value")) for each in responses
    ],
}
# The options of each filter, and what they are.
_REGEX: dict[str, type] = {"regex_pattern": str, "group_select": int, "fallback": object}
OPTIONS: dict[str, dict[str, type]] = {
    "take_first_k": {"k": int},
    "regex": _REGEX,
    "multi_choice_regex": {**_REGEX, "ignore_case": bool, "ignore_punctuation": bool, "regexes_to_ignore": list},
    "map": {"mapping_dict": dict, "default_value": object},
}
