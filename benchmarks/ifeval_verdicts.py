"""IFEval's verdicts beside lm-evaluation-harness's own, on recorded responses.

    python benchmarks/ifeval_verdicts.py RESPONSES.jsonl[.gz] [--documents input_data.jsonl]

RESPONSES has rows {"prompt", "response"}. With --documents (the data set: rows {"key", "prompt", "instruction_id_list",
"kwargs"}) each response is judged by its own instructions, and the four accuracies are printed; without, every response
is judged by each of the 25 instructions with the arguments below. Every difference is counted, and the first are shown.

The other side needs lm_eval, langdetect, immutabledict and NLTK's English sentence model (punkt_tab, found through
NLTK_DATA); one seed is set for its language detector. Where a document has a sign for a letter, or an argument that is
0, lm-evaluation-harness draws at random: these instructions, and in the accuracies these documents, are left out.

What may differ: number_sentences after abbreviations and initials (`tasks/sentences.py`), and number_words where NLTK
(3.10.4 does) has another engine of regular expressions than the paper's program, in which the vowel signs of Indian
scripts and other marks do not divide words.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any

import langdetect
import nltk

from bottega.evaluate.tasks.functions import agg_inst_level_acc
from bottega.evaluate.tasks.ifeval import INSTRUCTIONS, process_results

Doc = dict[str, Any]

RELATIONS = ("less than", "at least")
ARGUMENTS: dict[str, list[Doc]] = {
    "keywords:existence": [{"keywords": ["the", "is"]}, {"keywords": ["could"]}],
    "keywords:frequency": [{"keyword": "you", "frequency": n, "relation": r} for n in (1, 4) for r in RELATIONS],
    "keywords:forbidden_words": [{"forbidden_words": ["in", "on"]}, {"forbidden_words": ["good"]}],
    "keywords:letter_frequency": [
        {"letter": "t", "let_frequency": n, "let_relation": r} for n in (20, 90) for r in RELATIONS
    ],
    "language:response_language": [{"language": code} for code in ("en", "hi", "de")],
    "length_constraints:number_sentences": [
        {"num_sentences": n, "relation": r} for n in (3, 5, 8, 10, 15, 20) for r in RELATIONS
    ],
    "length_constraints:number_paragraphs": [{"num_paragraphs": n} for n in (1, 2, 3, 5)],
    "length_constraints:number_words": [{"num_words": n, "relation": r} for n in (100, 300) for r in RELATIONS],
    "length_constraints:nth_paragraph_first_word": [
        {"num_paragraphs": n, "nth_paragraph": 1, "first_word": word} for n in (1, 2, 4) for word in ("The", "dear")
    ],
    "detectable_content:number_placeholders": [{"num_placeholders": n} for n in (1, 3)],
    "detectable_content:postscript": [{"postscript_marker": marker} for marker in ("P.S.", "P.P.S")],
    "detectable_format:number_bullet_lists": [{"num_bullets": n} for n in (2, 3, 5)],
    "detectable_format:number_highlighted_sections": [{"num_highlights": n} for n in (1, 3)],
    "detectable_format:multiple_sections": [
        {"section_spliter": word, "num_sections": n} for word in ("Section", "SECTION") for n in (1, 3)
    ],
    "combination:repeat_prompt": [{"prompt_to_repeat": "Write a"}],
    "startend:end_checker": [{"end_phrase": "Is there anything else I can help with?"}, {"end_phrase": "."}],
    "change_case:capital_word_frequency": [
        {"capital_frequency": n, "capital_relation": r} for n in (2, 5, 20) for r in RELATIONS
    ],
}


def rows(path: Path) -> list[Doc]:
    read = gzip.open if path.suffix == ".gz" else open
    with read(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def every_instruction(responses: list[Doc]) -> Iterator[tuple[Doc, str]]:
    for row in responses:
        for instruction in INSTRUCTIONS:
            for given in ARGUMENTS.get(instruction, [{}]):
                yield {"key": 0, "prompt": "", "instruction_id_list": [instruction], "kwargs": [given]}, row["response"]


def own_instructions(responses: list[Doc], documents: list[Doc]) -> Iterator[tuple[Doc, str]]:
    answered = {row["prompt"]: row["response"] for row in responses}
    for doc in documents:
        if doc["prompt"] in answered:
            yield doc, answered[doc["prompt"]]


def draws(doc: Doc) -> bool:
    """Whether lm-evaluation-harness draws an argument of this document at random."""
    values = [(name, value) for given in doc["kwargs"] for name, value in given.items() if value is not None]
    return any(not value or (name == "letter" and not "a" <= value.lower() <= "z") for name, value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("responses", type=Path)
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--quick", action="store_true", help="the first 20 responses only")
    arguments = parser.parse_args()
    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        parser.error("NLTK's English model is missing: nltk.download('punkt_tab'), or set NLTK_DATA to its folder.")
    from lm_eval.tasks.ifeval.utils import process_results as their_results

    langdetect.DetectorFactory.seed = 0
    responses = rows(arguments.responses)[: 20 if arguments.quick else None]
    pairs = list(
        own_instructions(responses, rows(arguments.documents)) if arguments.documents else every_instruction(responses)
    )
    ours, theirs, seconds = [], [], {}
    for side, judge, verdicts in (("ours", process_results, ours), ("theirs", their_results, theirs)):
        started = time.perf_counter()
        verdicts += [judge(doc, [response]) for doc, response in pairs]
        seconds[side] = time.perf_counter() - started
    report(pairs, ours, theirs)
    print(f"seconds: ours {seconds['ours']:.1f}, lm-evaluation-harness {seconds['theirs']:.1f}")


def report(pairs: list[tuple[Doc, str]], ours: list[Doc], theirs: list[Doc]) -> None:
    compared, differing, passed, examples = Counter(), Counter(), Counter(), []
    sure = [not draws(doc) for doc, _ in pairs]
    for (doc, _), mine, other in zip(pairs, ours, theirs, strict=True):
        for kind in ("strict", "loose"):
            both = zip(mine[f"inst_level_{kind}_acc"], other[f"inst_level_{kind}_acc"], strict=True)
            for instruction, given, (one, two) in zip(doc["instruction_id_list"], doc["kwargs"], both, strict=True):
                if not draws({"kwargs": [given]}):
                    compared[instruction] += 1
                    passed[instruction] += one
                    differing[instruction] += one != two
                    examples += [f"{kind} {instruction} {given}: ours {one}"] * (one != two)
    print(f"{'instruction':48s} {'verdicts':>8s} {'true':>7s} {'differ':>6s}")
    for instruction, count in sorted(compared.items()):
        print(f"{instruction:48s} {count:8d} {passed[instruction] / count:7.1%} {differing[instruction]:6d}")
    print(f"{'all':48s} {compared.total():8d} {passed.total() / compared.total():7.1%} {differing.total():6d}")
    print(f"documents of which lm-evaluation-harness draws an argument: {sure.count(False)} of {len(pairs)}")
    for name in ours[0]:
        values = [[verdict[name] for verdict in compress(side, sure)] for side in (ours, theirs)]
        mean = [agg_inst_level_acc(side) if name.startswith("inst") else sum(side) / len(side) for side in values]
        print(f"{name}: ours {mean[0]:.4f}, lm-evaluation-harness {mean[1]:.4f}")
    print(*examples[:20], sep="\n")


if __name__ == "__main__":
    main()
