"""The run of `eval`: load, score the text, compare, run the baselines, ask the questions."""

from __future__ import annotations

import json
import random
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bottega.checkpoint.folder import ModelFolder
from bottega.core.atomic import write_json, write_text
from bottega.core.errors import BottegaError, UserError
from bottega.core.machine import resolve_device, resolve_threads
from bottega.core.plan import Plan
from bottega.core.progress import Reporter
from bottega.core.verb import Context, Result
from bottega.data.spec import QUESTIONS_FILE, TRAIN_FILE
from bottega.evaluate.baselines import Baselines, measure_baselines
from bottega.evaluate.choice import answer_questions, asks_by_chat, summarise
from bottega.evaluate.compare import compare_models, difference
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.harness.run import measure_tasks
from bottega.evaluate.items import ITEMS_FILE, Item, items_text
from bottega.evaluate.likelihood import Likelihood, Windowing, score_documents, windowing_for
from bottega.evaluate.plan import NOT_COMPARABLE
from bottega.evaluate.samples import sample_answers, sample_continuations
from bottega.evaluate.spec import EVALUATION_FILE, PREDICTIONS_FILE
from bottega.evaluate.texts import (
    Document,
    Documents,
    read_documents,
    read_questions,
    read_texts,
    sample_documents,
    text_file,
)
from bottega.evaluate.view import evaluation_blocks
from bottega.generate.generator import Generator
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.load import DTYPES, load_decoder
from bottega.tokenizer.tokenizer import Tokenizer

SAMPLED_TOKENS = 20_000  # of the text, from which beginnings are taken
Loaded = tuple[Decoder, Tokenizer]


def run_evaluate(plan: Plan, context: Context) -> Result:
    """Measure as planned; with `out`, evaluation.json and predictions.jsonl are written there."""
    config = plan.config
    assert isinstance(config, EvaluateModel)
    torch.set_num_threads(resolve_threads(config.threads))
    data: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    items: list[Item] = []
    if config.text is not None or config.questions is not None:
        data, rows = _measure_one(plan, config, context.reporter)
    if config.tasks or config.suite:
        measured, items = measure_tasks(config, context.reporter)
        _require_results(measured["models"])
        data |= measured
    if plan.out is not None:
        write_json(context.out / EVALUATION_FILE, data)
        if rows:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(context.out / PREDICTIONS_FILE, lines)
        if items:
            write_text(context.out / ITEMS_FILE, items_text(items))
    return Result(data, evaluation_blocks(data))


def _require_results(models: list[dict[str, Any]]) -> None:
    """Raise BottegaError if every task of every model failed: then there is nothing to show."""
    if not any(entry["results"] for entry in models):
        causes = {cause: None for entry in models for cause in entry["errors"].values()}
        shown = "; ".join(list(causes)[:3]) + ("; …" if len(causes) > 3 else "")
        raise BottegaError(f"nothing could be measured: {shown}")


def _measure_one(plan: Plan, config: EvaluateModel, reporter: Reporter) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures of one model on a text and on questions, and a row for each question."""
    model = _load(plan, "model")
    data: dict[str, Any] = {"model": config.model[0], "dtype": plan.details["dtype"]}
    rows: list[dict[str, Any]] = []
    if config.text is not None:
        data |= _measure_text(plan, config, model, reporter)
    if config.questions is not None:
        measured, rows = _ask(config, model, config.questions, reporter)
        data |= measured
    if config.samples:
        data["samples"] = _samples(config, model, reporter)
    return data, rows


def _load(plan: Plan, name: str) -> Loaded:
    assert isinstance(plan.config, EvaluateModel)
    folder = ModelFolder.open(plan.inputs[name], plan.config.adapter if name == "model" else ())
    decoder = load_decoder(folder, device=resolve_device(plan.config.device), dtype=DTYPES[plan.details["dtype"]])
    return prepare_for_inference(decoder), Tokenizer.load(folder.path)


def _measure_text(plan: Plan, config: EvaluateModel, model: Loaded, reporter: Reporter) -> dict[str, Any]:
    """Likelihood of the text, beside the reference's and the baselines' if they are wanted."""
    assert config.text is not None
    decoder, tokenizer = model
    file = text_file(config.text)
    sample = sample_documents(tokenizer, file, config.max_tokens, config.seed)
    documents = sample.documents
    if not documents.each:
        raise UserError(f"{file} holds no text")
    windowing = windowing_for(decoder, tokenizer, plan.details["context"], plan.details["stride"])
    with ThreadPoolExecutor(max_workers=1) as pool:
        simple = _start_baselines(pool, config, documents)
        if simple is not None:  # it keeps a core busy, and threads that wait for each other on too few cores crawl
            torch.set_num_threads(max(1, resolve_threads(config.threads) - 1))
        if config.against is None:
            likelihood = _score(decoder, documents.each, windowing, "text", reporter)
            data = likelihood.as_data()
        else:
            data = _compare(plan, config.against, model, documents, windowing, reporter)
        data |= sample.as_data()
        if simple is not None:
            data["baselines"] = simple.result().as_data()
            torch.set_num_threads(resolve_threads(config.threads))
    return data


def _start_baselines(pool: ThreadPoolExecutor, config: EvaluateModel, documents: Documents) -> Future[Baselines] | None:
    """The baselines run beside the model: most of their time is xz, which is single-threaded."""
    if config.baselines is None:
        return None
    file = text_file(config.baselines, TRAIN_FILE)
    training = [text.encode("utf-8") for text in read_texts(file)]
    if not any(training):
        raise UserError(f"{file} holds no text to learn from")
    held_out = [document.content for document in documents.each]
    return pool.submit(measure_baselines, held_out, training, prime_bytes=config.xz_megabytes << 20)


def _score(
    decoder: Decoder, documents: list[Document], windowing: Windowing, name: str, reporter: Reporter
) -> Likelihood:
    total = sum(len(document.ids) for document in documents)
    with reporter.bar(f"scoring {name}", total, "tokens") as bar:
        return score_documents(decoder, documents, windowing, progress=bar.advance)


def _compare(
    plan: Plan, against: str, model: Loaded, documents: Documents, windowing: Windowing, reporter: Reporter
) -> dict[str, Any]:
    """The model's figures with the comparison: all of it with one tokenizer, else bits per byte only."""
    decoder, tokenizer = model
    reference, others = _load(plan, "against")
    if tokenizer.hash == others.hash:
        with reporter.bar("comparing", documents.tokens, "tokens") as bar:
            found = compare_models(decoder, reference, documents.each, windowing, progress=bar.advance)
        return {**found.model.as_data(), "against": against, **found.as_data()}
    likelihood = _score(decoder, documents.each, windowing, "text", reporter)
    # The same bytes in the other tokenizer's tokens, document by document.
    texts = (document.content.decode("utf-8") for document in documents.each)
    encoded = read_documents(others, texts).each
    its = windowing_for(reference, others, plan.details["context"], plan.details["stride"])
    beside = _score(reference, encoded, its, "text (reference)", reporter)
    return {
        **likelihood.as_data(),
        "against": against,
        "not_comparable": NOT_COMPARABLE,
        **difference(likelihood, beside),
    }


def _samples(config: EvaluateModel, model: Loaded, reporter: Reporter) -> list[dict[str, Any]]:
    decoder, tokenizer = model
    generator = Generator(decoder, tokenizer)
    questions = read_questions(text_file(config.questions, QUESTIONS_FILE)) if config.questions else []
    if questions:
        chat = asks_by_chat(tokenizer, config.prompt)
        return sample_answers(generator, questions, config.samples, chat=chat, reporter=reporter)
    assert config.text is not None  # the config's own validation
    sample = sample_documents(tokenizer, text_file(config.text), SAMPLED_TOKENS, config.seed)
    return sample_continuations(generator, sample.documents.each, config.samples, reporter)


def _ask(
    config: EvaluateModel, model: Loaded, path: Path, reporter: Reporter
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    decoder, tokenizer = model
    questions = read_questions(text_file(path, QUESTIONS_FILE))
    if not questions:
        if not path.is_dir() or config.text is None:
            raise UserError(f"nothing to measure: {text_file(path, QUESTIONS_FILE)} holds no questions")
        return {"not_asked": "The corpus has no questions: nothing was asked."}, []
    if config.max_questions is not None and config.max_questions < len(questions):
        drawn = random.Random(config.seed).sample(range(len(questions)), config.max_questions)
        questions = [questions[index] for index in sorted(drawn)]
    chat = asks_by_chat(tokenizer, config.prompt)
    with reporter.bar("asking", len(questions), "questions") as bar:
        predictions = answer_questions(decoder, tokenizer, questions, chat=chat, bar=bar)
    summary = summarise(predictions, chat=chat, seed=config.seed)
    return {"choice": summary}, [prediction.as_row() for prediction in predictions]
