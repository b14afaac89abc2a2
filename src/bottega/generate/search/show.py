"""What a search found, as data and for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.verb import Result
from bottega.core.view import Block, Table, Text
from bottega.generate.search.find import Found
from bottega.generate.search.settings import Search
from bottega.tokenizer.tokenizer import Tokenizer

_SCORES = {
    "beam": "log-probability / length^{length_penalty:g}",
    "contrastive": "mean of probability less likeness",
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
        "text": found.texts[0],
        "token_ids": best.tokens,
        "finish_reason": best.finish_reason,
        "prompt_tokens": len(prompt),
        "sequences": [
            {
                "text": text,
                "score": answer.score,
                "logprob": answer.logprob,
                "token_ids": answer.tokens,
                "finish_reason": answer.finish_reason,
            }
            for answer, text in zip(found.sequences, found.texts, strict=True)
        ],
    }
    if found.tree is not None:
        data["tree"] = [
            {**step, "beams": [{**node, "text": tokenizer.token_text(node["token"])} for node in step["beams"]]}
            for step in found.tree
        ]
    view: list[Block] = [Text(before + found.texts[0])]
    if found.vote is not None:
        data["answer"] = found.vote.winner
        data["votes"] = [{"answer": answer, "count": count} for answer, count in found.vote.counts]
        for sequence, answer in zip(data["sequences"], found.vote.answers, strict=True):
            sequence["answer"] = answer
        view.append(_votes(found))
    if found.vote is not None or len(found.sequences) > 1:
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
    """The answers with their scores, best first."""
    votes = found.vote.answers if found.vote is not None else None
    columns = ("", "score", "per token", "tokens", "end", "text")
    rows = [
        (
            place + 1,
            round(answer.score, 4),
            round(answer.mean_logprob, 3),
            len(answer.tokens),
            answer.finish_reason,
            text,
        )
        for place, (answer, text) in enumerate(zip(found.sequences, found.texts, strict=True))
    ]
    if votes is not None:
        columns = (*columns, "answer")
        rows = [(*row, vote) for row, vote in zip(rows, votes, strict=True)]
    score = _SCORES.get(search.method, "mean log-probability").format(length_penalty=search.length_penalty)
    title = {"beam": f"The best {len(rows)} of {search.num_beams} beams", "best_of": f"The best of {search.best_of}"}
    return Table(title.get(search.method, f"{len(rows)} samples"), columns, rows, f"score: {score}; per token: nats")
