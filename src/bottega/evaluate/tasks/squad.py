"""Answers compared as SQuAD does it (Rajpurkar et al. 2016, arXiv:1606.05250), and tasks that use it: CoQA, ReCoRD.

An answer is taken in lower case, without punctuation, articles and surplus white space. Exact match is 1 if both are
then equal; F1 is the harmonic mean of precision and recall over their words, counted as often as they occur.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Doc = dict[str, Any]
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """`answer` in lower case, without punctuation, articles and surplus white space."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer.lower().translate(_PUNCTUATION)).split())


def exact(gold: str, predicted: str) -> float:
    """1 if both answers are the same."""
    return float(normalized(gold) == normalized(predicted))


def f1(gold: str, predicted: str) -> float:
    """Harmonic mean of precision and recall over words; where either has none, whether neither has."""
    words, found = normalized(gold).split(), normalized(predicted).split()
    if not words or not found:
        return float(words == found)
    common = (Counter(words) & Counter(found)).total()
    return 2 * common / (len(words) + len(found))


def coqa_doc_to_text(doc: Doc) -> str:
    """The story, the conversation so far, and the last question."""
    questions, answers = doc["questions"]["input_text"], doc["answers"]["input_text"]
    turns = "".join(
        f"Q: {question}\n\nA: {answer}\n\n" for question, answer in zip(questions[:-1], answers, strict=False)
    )
    return f"{doc['story']}\n\n{turns}Q: {questions[-1]}\n\nA:"


def coqa_doc_to_target(doc: Doc) -> list[str]:
    """The answers to the last question: its own, and further ones that differ from it."""
    turn = len(doc["questions"]["input_text"]) - 1
    others = (doc.get("additional_answers") or {}).values()
    answers = [doc["answers"]["input_text"][turn]]
    for answer in (other["input_text"][turn] for other in others):
        if answer.lower() not in [each.lower() for each in answers]:
            answers.append(answer)
    return answers


def coqa_process_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """`em` and `f1` of the response's first line: each answer left out once, the best of the others, averaged."""
    gold = coqa_doc_to_target(doc)
    response = results[0].strip().split("\n")[0]
    groups = [gold[:index] + gold[index + 1 :] for index in range(len(gold))] if len(gold) > 1 else [gold]

    def mean_of_best(compare: Callable[[str, str], float]) -> float:
        return sum(max(compare(answer, response) for answer in group) for group in groups) / len(groups)

    return {"em": mean_of_best(exact), "f1": mean_of_best(f1)}


def record_process_docs(docs: Sequence[Doc]) -> list[Doc]:
    """Entities and answers sorted, each once."""
    return [{**doc, **{key: sorted(set(doc[key])) for key in ("entities", "answers")}} for doc in docs]


def record_doc_to_text(doc: Doc) -> str:
    """The article, and its highlights as a list."""
    article, *highlights = doc["passage"].strip().split("\n@highlight\n")
    return f"{article}\n\n" + "".join(f"  - {highlight}.\n" for highlight in highlights)


def record_doc_to_choice(doc: Doc) -> list[str]:
    """One more highlight, with each entity in its gap."""
    return [_highlight(doc, entity) for entity in doc["entities"]]


def record_doc_to_target(doc: Doc) -> str:
    """The highlight with the first right entity."""
    return _highlight(doc, doc["answers"][0])


def record_process_results(doc: Doc, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """`f1` and `em` of the likeliest entity against the right one nearest to it."""
    scores = [loglikelihood for loglikelihood, _ in results]
    chosen = doc["entities"][scores.index(max(scores))]
    return {
        "f1": max(f1(answer, chosen) for answer in doc["answers"]),
        "em": max(exact(answer, chosen) for answer in doc["answers"]),
    }


def _highlight(doc: Doc, entity: str) -> str:
    return f"  - {doc['query']}".replace("@placeholder", entity)
