"""What a search found, as data and for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.verb import Result
from bottega.core.view import Block, Table, Text
from bottega.generate.search.find import Found
from bottega.generate.search.settings import Search
from bottega.tokenizer.tokenizer import Tokenizer

# A table's title, and what its scores are.
_SHOWN = {
    "beam": ("The best {shown} of {search.num_beams} beams", "log-probability / length^{search.length_penalty:g}"),
    "best_of": ("The best {shown} of {search.best_of} samples", "log-probability per token"),
    "self_consistency": ("{shown} samples, those that agree first", "log-probability per token"),
}


def result_of(found: Found, search: Search, tokenizer: Tokenizer, prompt: Sequence[int], before: str) -> Result:
    """The verb's result.

    Args:
        found: what was found.
        search: by what settings.
        tokenizer: names the tokens of a tree.
        prompt: token ids.
        before: text that the answer continues.
    """
    best = found.sequences[0]
    data: dict[str, Any] = {
        "text": best.text,
        "token_ids": best.tokens,
        "finish_reason": best.finish_reason,
        "prompt_tokens": len(prompt),
        "sequences": [
            {
                "text": answer.text,
                "score": answer.score,
                "logprob": answer.logprob,
                "token_ids": answer.tokens,
                "finish_reason": answer.finish_reason,
            }
            for answer in found.sequences
        ],
    }
    if found.tree is not None:
        data["tree"] = [
            {**step, "beams": [{**node, "text": tokenizer.token_text(node["token"])} for node in step["beams"]]}
            for step in found.tree
        ]
    view: list[Block] = [Text(before + best.text)]
    if found.vote is not None:
        data["answer"] = found.vote.winner
        data["votes"] = [{"answer": answer, "count": count} for answer, count in found.vote.counts]
        for sequence, answer in zip(data["sequences"], found.vote.answers, strict=True):
            sequence["answer"] = answer
        view.append(_votes(found))
    if search.method in _SHOWN:
        view.append(_sequences(found, search))
    return Result(data, view)


def _votes(found: Found) -> Table:
    assert found.vote is not None
    number = len(found.sequences)
    rows = [(answer, count, f"{count / number:.0%}") for answer, count in found.vote.counts]
    silent = sum(answer is None for answer in found.vote.answers)
    note = f"{silent} of {number} samples have no answer" if silent else ""
    return Table("The vote", ("answer", "samples", "share"), rows, note)


def _sequences(found: Found, search: Search) -> Table:
    """The answers with their scores, a line each."""
    columns = ["", "score", "log-prob.", "tokens", "end", "text"]
    rows: list[list[Any]] = [
        [place, answer.score, answer.logprob, len(answer.tokens), answer.finish_reason, answer.text.replace("\n", "↵")]
        for place, answer in enumerate(found.sequences, 1)
    ]
    if found.vote is not None:
        columns.append("answer")
        rows = [[*row, answer] for row, answer in zip(rows, found.vote.answers, strict=True)]
    title, score = (text.format(shown=len(rows), search=search) for text in _SHOWN[search.method])
    return Table(title, columns, rows, f"score: {score}")
