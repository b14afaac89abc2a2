"""The Python that well-known task files name with `!function`, by name, so that they run without foreign code.

lm-evaluation-harness's YAML names a function of a file that lies beside it (`!function utils.process_docs`). A task
file of that name over that data set gets ours; one that has another name or other data may mean another function of
the same name, and is left to `--allow-code`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bottega.evaluate.tasks import bigbench, code_tasks, multiple_choice, squad, wikitext

# `dataset_path` of task files that read local files, and say so.
LOADERS = frozenset({"json", "csv", "parquet", "text"})


@dataclass(frozen=True)
class Known:
    """Functions of the tasks whose names begin with `task`, over one of `datasets`."""

    task: str
    datasets: tuple[str, ...]
    functions: dict[str, Callable[..., Any]]


def ifeval_process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """See `tasks/ifeval.py`, which is read only where it is needed: it loads a language detector."""
    from bottega.evaluate.tasks.ifeval import process_results

    return process_results(doc, results)


def agg_inst_level_acc(items: list[list[bool]]) -> float:
    """Share of instructions that are followed, over all documents: IFEval's instruction-level accuracy."""
    followed = [each for item in items for each in item]
    return sum(followed) / len(followed)


AGIEVAL = tuple(
    f"agieval-{exam}"
    for exam in (
        "aqua-rat",
        "logiqa-en",
        "lsat-ar",
        "lsat-lr",
        "lsat-rc",
        "sat-en",
        "sat-en-without-passage",
        "sat-math",
    )
)
_IFEVAL = {"utils.process_results": ifeval_process_results, "utils.agg_inst_level_acc": agg_inst_level_acc}

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
        "record",
        ("super_glue", "record"),
        {
            "util.process_docs": squad.record_process_docs,
            "util.doc_to_text": squad.record_doc_to_text,
            "util.doc_to_choice": squad.record_doc_to_choice,
            "util.doc_to_target": squad.record_doc_to_target,
            "util.process_results": squad.record_process_results,
        },
    ),
    Known(
        "coqa",
        ("coqa",),
        {
            "utils.doc_to_text": squad.coqa_doc_to_text,
            "utils.doc_to_target": squad.coqa_doc_to_target,
            "utils.process_results": squad.coqa_process_results,
        },
    ),
    Known(
        "pubmedqa",
        ("pubmed_qa", "pubmedqa"),
        {"preprocess_pubmedqa.doc_to_text": multiple_choice.pubmedqa_doc_to_text},
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
    Known(
        "humaneval",
        ("openai_humaneval", "humaneval", "humanevalplus"),
        {
            "utils.pass_at_k": code_tasks.pass_at_k,
            "utils.build_predictions": code_tasks.humaneval_build_predictions,
            "utils.build_predictions_instruct": code_tasks.humaneval_build_predictions_instruct,
        },
    ),
    Known(
        "mbpp",
        ("mbpp", "mbppplus"),
        {
            "utils.pass_at_1": code_tasks.pass_at_1,
            "utils.build_predictions": code_tasks.mbpp_build_predictions,
            "utils.list_fewshot_samples": code_tasks.mbpp_list_fewshot_samples,
        },
    ),
    Known("agieval", AGIEVAL, {"utils.process_results_mcqa": multiple_choice.agieval_process_results_mcqa}),
    Known(
        "bigbench",
        ("bigbench",),
        {
            "utils.filter_multiple_choice": bigbench.filter_multiple_choice,
            "bigbench.process_docs": bigbench.process_docs,
            "bigbench.process_results": bigbench.process_results,
        },
    ),
    Known("ifeval", ("ifeval",), _IFEVAL),
    Known("leaderboard_ifeval", ("instruction-following-eval", "ifeval"), _IFEVAL),
    Known("leaderboard_gpqa", ("gpqa",), {"utils.process_docs": multiple_choice.leaderboard_gpqa_process_docs}),
    Known("leaderboard_musr", ("musr",), {"utils.doc_to_text": multiple_choice.musr_doc_to_text}),
    Known(
        "leaderboard_mmlu_pro",
        ("mmlu-pro",),
        {
            "utils.doc_to_text": multiple_choice.mmlu_pro_doc_to_text,
            "utils.doc_to_choice": multiple_choice.mmlu_pro_doc_to_choice,
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
        if named and (dataset in LOADERS or not dataset or dataset in known.datasets):
            return known.functions.get(reference)
    return None
