"""BIG-bench's own `task.json` files, scored as BIG-bench does (multiple_choice_grade).

Source: the format and scoring of Srivastava et al. 2022 (arXiv:2206.04615; docs/doc.md of its repository) as
lm-evaluation-harness 0.3 had them, which is what LLM AutoEval's `nous` suite runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

Doc = dict[str, Any]
SEED = 42


def filter_multiple_choice(docs: Sequence[Doc]) -> list[Doc]:
    """Documents that have choices: some exported tasks mix them with free answers."""
    return [doc for doc in docs if doc["multiple_choice_targets"]]


def process_docs(docs: Sequence[Doc]) -> list[Doc]:
    """The examples of task files, each once: `query` (with the choices listed), `choices`, `scores` and `gold`."""
    return [_example(example, file) for file in docs for example in _unique(file["examples"])]


def process_results(doc: Doc, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """The score that the task gives to the likeliest choice; among equals the first."""
    scores = [loglikelihood for loglikelihood, _ in results]
    return {"multiple_choice_grade": float(doc["scores"][scores.index(max(scores))])}


def _example(example: Doc, file: Doc) -> Doc:
    choices, scores = list(example["target_scores"]), list(example["target_scores"].values())
    listed = ""
    if file.get("append_choices_to_input", True):
        # A generator for each example, as in BIG-bench: equal choices are always listed in the same order.
        shuffled = np.random.RandomState(SEED).permutation(sorted(choices))
        listed = "".join(file.get("choice_prefix", "\n  choice: ") + str(choice) for choice in shuffled)
    question = file.get("task_prefix", "") + file.get("example_input_prefix", "\nQ: ") + example["input"]
    query = question + listed + file.get("example_output_prefix", "\nA: ")
    return {"query": query, "choices": choices, "scores": scores, "gold": scores.index(max(scores))}


def _unique(examples: Sequence[Doc]) -> list[Doc]:
    return list({json.dumps(example): example for example in examples}.values())
