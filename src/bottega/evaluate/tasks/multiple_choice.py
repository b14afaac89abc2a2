"""Python parts of the multiple-choice tasks: how documents become prompts and choices, and scores that are no mean.

Each function does what the function of the same name does in lm-evaluation-harness 0.4.13's task folder (hellaswag,
winogrande, truthfulqa, pubmedqa, super_glue/copa, agieval, leaderboard/{gpqa,musr,mmlu_pro}), over plain
dictionaries. `results` is the list of (log-likelihood, greedy) pairs of a document's choices.
"""

from __future__ import annotations

import ast
import math
import random
import re
import string
from collections.abc import Sequence
from typing import Any

Doc = dict[str, Any]
Results = Sequence[tuple[float, bool]]
COPA_CONNECTORS = {"cause": "because", "effect": "therefore"}


def without_markup(text: str) -> str:
    """`text` without WikiHow's `[title]` and other bracketed remains (Zellers et al. 2019), as HellaSwag is scored."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def hellaswag_process_docs(docs: Sequence[Doc]) -> list[Doc]:
    """Adds `query` (activity and context), `choices` (cleaned endings) and `gold`."""

    def processed(doc: Doc) -> Doc:
        context = f"{doc['ctx_a']} {doc['ctx_b'].capitalize()}"
        return {
            **doc,
            "query": without_markup(f"{doc['activity_label']}: {context}"),
            "choices": [without_markup(ending) for ending in doc["endings"]],
            "gold": int(doc["label"]) if str(doc["label"]).strip() else -1,  # the test split has no labels
        }

    return [processed(doc) for doc in docs]


def winogrande_doc_to_text(doc: Doc) -> int:
    """Index of the right context among `winogrande_doc_to_choice`'s."""
    return {"1": 0, "2": 1}[str(doc["answer"])]


def winogrande_doc_to_choice(doc: Doc) -> list[str]:
    """The two contexts: the sentence up to the blank, with either option in it."""
    before = doc["sentence"][: doc["sentence"].index("_")]
    return [before + doc["option1"], before + doc["option2"]]


def winogrande_doc_to_target(doc: Doc) -> str:
    """What is scored after either context: the rest of the sentence."""
    return doc["sentence"][doc["sentence"].index("_") + 1 :].strip()


def copa_doc_to_text(doc: Doc) -> str:
    """The premise without its full stop, and a connector."""
    return f"{doc['premise'].strip()[:-1]} {COPA_CONNECTORS[doc['question']]}"


def copa_doc_to_choice(doc: Doc) -> list[str]:
    """Both choices as continuations of a sentence."""
    return [" " + doc[key][0].lower() + doc[key][1:] for key in ("choice1", "choice2")]


def copa_doc_to_target(doc: Doc) -> str:
    """The right one of `copa_doc_to_choice`."""
    return copa_doc_to_choice(doc)[0 if doc["label"] == 0 else 1]


def pubmedqa_doc_to_text(doc: Doc) -> str:
    """Abstract and question."""
    return "Abstract: {}\nQuestion: {}\nAnswer:".format("\n".join(doc["CONTEXTS"]), doc["QUESTION"])


def truthfulqa_process_results_mc2(doc: Doc, results: Results) -> dict[str, float]:
    """Probability of the true answers among all given ones (Lin et al. 2022, MC2), over log-likelihoods in nats.

    Taken through log-sum-exp: the plain exponentials of long answers are all zero, and their ratio no number.
    """
    scores = [loglikelihood for loglikelihood, _ in results]
    largest = max(scores)
    if largest == -math.inf:
        return {"acc": 0.0}
    weights = [math.exp(score - largest) for score in scores]
    labels = doc["mc2_targets"]["labels"]
    return {"acc": sum(weight for weight, label in zip(weights, labels, strict=True) if label == 1) / sum(weights)}


def agieval_process_results_mcqa(doc: Doc, results: Results) -> dict[str, float]:
    """acc and acc_norm where several choices may be right (`gold` lists them)."""
    scores = [loglikelihood for loglikelihood, _ in results]
    by_length = [score / len(choice) for score, choice in zip(scores, doc["choices"], strict=True)]
    chosen = {"acc": scores.index(max(scores)), "acc_norm": by_length.index(max(by_length))}
    return {name: float(index in doc["gold"]) for name, index in chosen.items()}


def leaderboard_gpqa_process_docs(docs: Sequence[Doc]) -> list[Doc]:
    """Adds `choice1` … `choice4` in shuffled order, and `answer`, "(A)" to "(D)".

    lm-evaluation-harness shuffles with Python's global generator, which it seeds with 0 at the start; here the
    generator is new for every call, so that the order depends on nothing else.
    """
    generator = random.Random(0)

    def processed(doc: Doc) -> Doc:
        columns = [*(f"Incorrect Answer {number}" for number in (1, 2, 3)), "Correct Answer"]
        texts = [" " if doc[column] is None else without_markup(doc[column]) for column in columns]
        right = texts[-1]
        generator.shuffle(texts)
        choices = {f"choice{number}": text for number, text in enumerate(texts, 1)}
        return {**doc, **choices, "answer": f"({string.ascii_uppercase[texts.index(right)]})"}

    return [processed(doc) for doc in docs]


def musr_doc_to_text(doc: Doc) -> str:
    """Story, question and numbered choices (the column `choices` is a list written as text)."""
    choices = "".join(f"{number} - {choice}\n" for number, choice in enumerate(ast.literal_eval(doc["choices"]), 1))
    return f"{doc['narrative']}\n\n{doc['question']}\n\n{choices}\nAnswer:"


def mmlu_pro_doc_to_choice(doc: Doc) -> list[str]:
    """The letters of its options, up to ten."""
    return list(string.ascii_uppercase[: len(doc["options"])])


def mmlu_pro_doc_to_text(doc: Doc) -> str:
    """Question and lettered options."""
    lettered = zip(mmlu_pro_doc_to_choice(doc), doc["options"], strict=True)
    return f"{doc['question']}\n" + "".join(f"{letter}. {option}\n" for letter, option in lettered) + "Answer:"
