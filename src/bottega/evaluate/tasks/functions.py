"""The Python that well-known task files name with `!function`, by name, so that they run without foreign code.

lm-evaluation-harness's YAML names a function of a file that lies beside it (`!function utils.process_docs`). A task
file of that name over that data set gets ours; one that has another name or other data may mean another function of
the same name, and is left to `--allow-code`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bottega.evaluate.tasks import multiple_choice, wikitext

# `dataset_path` of task files that read local files, and say so.
LOADERS = frozenset({"json", "csv", "parquet", "text", "arrow"})


@dataclass(frozen=True)
class Known:
    """Functions of the tasks whose names begin with `task`, over data sets with one of these names."""

    task: str
    datasets: tuple[str, ...]
    functions: dict[str, Callable[..., Any]]


KNOWN = (
    Known("hellaswag", ("hellaswag",), {"utils.process_docs": multiple_choice.hellaswag_process_docs}),
    Known(
        "winogrande",
        ("winogrande",),
        {
            "preprocess_winogrande.doc_to_text": multiple_choice.winogrande_doc_to_text,
            "preprocess_winogrande.doc_to_choice": multiple_choice.winogrande_doc_to_choice,
            "preprocess_winogrande.doc_to_target": multiple_choice.winogrande_doc_to_target,
        },
    ),
    Known(
        "copa",
        ("super_glue", "copa"),
        {
            "utils.doc_to_text": multiple_choice.copa_doc_to_text,
            "utils.doc_to_choice": multiple_choice.copa_doc_to_choice,
            "utils.doc_to_target": multiple_choice.copa_doc_to_target,
        },
    ),
    Known(
        "pubmedqa", ("pubmed_qa", "pubmedqa"), {"preprocess_pubmedqa.doc_to_text": multiple_choice.pubmedqa_doc_to_text}
    ),
    Known(
        "truthfulqa",
        ("truthful_qa", "truthfulqa"),
        {"utils.process_results_mc2": multiple_choice.truthfulqa_process_results_mc2},
    ),
    Known(
        "wikitext",
        ("wikitext_document_level", "wikitext"),
        {
            "preprocess_wikitext.wikitext_detokenizer": wikitext.wikitext_detokenizer,
            "preprocess_wikitext.process_results": wikitext.process_results,
        },
    ),
)


def known_function(task: str, dataset_path: str, reference: str) -> Callable[..., Any] | None:
    """The function that `reference` ("utils.process_docs") stands for in this task over this data set, or None.

    Data sets are compared by the last part of their path; a local file ("json") or none is any data set.
    """
    dataset = dataset_path.rstrip("/").rpartition("/")[2].lower()
    for known in KNOWN:
        named = task == known.task or task.startswith(known.task + "_")
        if named and (dataset in known.datasets or dataset in LOADERS or not dataset):
            return known.functions.get(reference)
    return None
