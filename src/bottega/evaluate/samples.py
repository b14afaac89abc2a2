"""What the model says, word for word: answers to some of the questions, or continuations of held-out text.

Figures do not show how a model speaks. The answers are greedy, so they are the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottega.core.progress import Reporter
from bottega.evaluate.texts import Document, Question
from bottega.generate.generator import Generator
from bottega.generate.sampling import Sampling

ANSWER_TOKENS = 64
BEGINNING_TOKENS = 48


def sample_answers(
    generator: Generator, questions: Sequence[Question], count: int, *, chat: bool, reporter: Reporter
) -> list[dict[str, Any]]:
    """`count` questions of each group, evenly spread over it, each with the model's answer and the right one."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    chosen = [
        group[place * len(group) // count] for group in groups.values() for place in range(min(count, len(group)))
    ]
    rows = []
    with reporter.bar("answering", len(chosen), "answers") as bar:
        for question in chosen:
            ids = generator.prompt_ids(question.question, chat=chat)
            completion = generator.complete(ids, Sampling(max_new_tokens=ANSWER_TOKENS, temperature=0.0))
            rows.append(
                {
                    "group": question.group,
                    "prompt": question.question,
                    "answer": completion.text.strip(),
                    "right": question.choices[question.answer],
                }
            )
            bar.advance()
    return rows


def sample_continuations(
    generator: Generator, documents: Sequence[Document], count: int, reporter: Reporter
) -> list[dict[str, Any]]:
    """The beginnings of `count` documents, continued by the model, beside how they really go on."""
    decode = generator.tokenizer.decode
    rows = []
    with reporter.bar("continuing", min(count, len(documents)), "texts") as bar:
        for document in documents[:count]:
            beginning = document.ids[:BEGINNING_TOKENS]
            prefix = generator.tokenizer.document_prefix()
            completion = generator.complete([*prefix, *beginning], Sampling(ANSWER_TOKENS, temperature=0.0))
            truth = document.ids[BEGINNING_TOKENS : BEGINNING_TOKENS + ANSWER_TOKENS]
            rows.append({"group": "", "prompt": decode(beginning), "answer": completion.text, "right": decode(truth)})
            bar.advance()
    return rows
