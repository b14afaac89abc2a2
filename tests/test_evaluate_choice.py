import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.core.progress import Quiet
from bottega.core.report import Section, render_report
from bottega.core.verb import Verb, execute
from bottega.core.view import Table
from bottega.evaluate.choice import (
    NO_QUESTION,
    ChoiceScorer,
    Offer,
    Prediction,
    answer_questions,
    asks_by_chat,
    offer,
    summarise,
)
from bottega.evaluate.config import EvaluateModel
from bottega.evaluate.plan import plan_evaluate
from bottega.evaluate.spec import EvaluationSpec, read_evaluation
from bottega.evaluate.statistics import wilson
from bottega.evaluate.texts import Question, read_documents, read_questions, read_texts, sample_documents
from bottega.evaluate.view import evaluation_blocks
from bottega.model.decoder import Decoder
from bottega.tokenizer.chat import encode_chat
from bottega.tokenizer.tokenizer import Tokenizer
from bottega.tokenizer.training import train, write_folder

TEXT = "Which module has join? The path module joins paths. What does split do? It splits text into parts. "
EVAL = Verb(
    "eval",
    "",
    config="bottega.evaluate.config:EvaluateModel",
    plan="bottega.evaluate.plan:plan_evaluate",
    run="bottega.evaluate.run:run_evaluate",
)
QUESTIONS = [
    Question("q1", "seen", "module", "Which module has join?", ("os.path", "os", "shutil and more", "é"), 0),
    Question("q2", "unseen", "what", "What does split do?", ("It splits text.", "It joins."), 0),
    Question("q3", "unseen", "what", "What does <|im_end|> do?", ("ends <|im_end|> here", "nothing", "x"), 2),
]


def make_model(folder: Path, *, seed: int = 0, vocabulary: int = 300, text: str = TEXT) -> Path:
    tokenizer = train(iter([text] * 20), vocabulary)
    size = tokenizer.get_vocab_size()
    config = ModelConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=(2,),
    )
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(seed))
    write_model_files(folder, config)
    state = {name: tensor for name, tensor in decoder.state_dict().items() if name != "lm_head.weight"}
    write_tensors(folder, state)
    write_folder(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "one")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def decoder(tokenizer: Tokenizer) -> Decoder:
    config = ModelConfig.read(tokenizer.folder)
    return Decoder(config).initialise(torch.Generator().manual_seed(3)).eval()


def recomputed(decoder: Decoder, context: tuple[int, ...], choice: tuple[int, ...]) -> float:
    """The whole sequence in one pass, without a cache or neighbours."""
    with torch.inference_mode():
        logits = decoder(torch.tensor([[*context, *choice]]))[0].double().log_softmax(-1)
    return sum(logits[len(context) + i - 1, token].item() for i, token in enumerate(choice))


@pytest.mark.parametrize("chat", [True, False])
def test_scores_equal_full_recomputation_without_cache(decoder: Decoder, tokenizer: Tokenizer, chat: bool) -> None:
    for question in QUESTIONS:
        offered = offer(tokenizer, question.question, question.choices, chat=chat)
        expected = [recomputed(decoder, offered.context, choice) for choice in offered.choices]
        assert ChoiceScorer(decoder).score(offered) == pytest.approx(expected, abs=1e-3)


def test_a_context_that_comes_again_is_run_once(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    hidden = Decoder.hidden
    monkeypatch.setattr(
        Decoder, "hidden", lambda self, ids, **rest: shapes.append(tuple(ids.shape)) or hidden(self, ids, **rest)
    )
    scorer = ChoiceScorer(decoder)
    first = scorer.score(Offer((5, 6, 7), ((8, 9), (10,))))
    assert scorer.score(Offer((5, 6, 7), ((8, 9, 9), (10,))))[1] == pytest.approx(first[1], abs=1e-5)
    assert scorer.score(Offer((5, 6, 7), ((8,), (10,))))[1] == pytest.approx(first[1], abs=1e-5)
    assert shapes == [(1, 3), (2, 1), (2, 2)]
    assert scorer.score(Offer((5, 6, 6), ((8,), (10,))))[1] != pytest.approx(first[1], abs=1e-5)


def test_chat_offers_are_what_training_sees(tokenizer: Tokenizer) -> None:
    question = QUESTIONS[2]
    offered = offer(tokenizer, question.question, question.choices, chat=True)
    messages = [{"role": "user", "content": question.question}]
    assert list(offered.context) == encode_chat(tokenizer, messages, add_generation_prompt=True).ids
    for choice, ids in zip(question.choices, offered.choices, strict=True):
        trained = encode_chat(tokenizer, [*messages, {"role": "assistant", "content": choice}])
        assert trained.ids[: len(offered.context) + len(ids)] == [*offered.context, *ids]
        # The stop token that ends the turn counts; the one that stands in the text is text.
        assert ids[-1] == tokenizer.eos_id and tokenizer.eos_id not in ids[:-1]
        assert tokenizer.decode(ids[:-1], skip_special=False) == choice


def test_plain_offers_read_as_question_and_answer(tokenizer: Tokenizer) -> None:
    offered = offer(tokenizer, "Why?", ("because", "so"), chat=False)
    assert offered.context[0] == tokenizer.bos_id
    assert [tokenizer.decode([*offered.context[1:], *ids]) for ids in offered.choices] == [
        "Question: Why?\nAnswer: because",
        "Question: Why?\nAnswer: so",
    ]


def test_answers_alone_do_not_see_the_question(decoder: Decoder, tokenizer: Tokenizer) -> None:
    changed = [Question(q.id, q.group, q.kind, q.question + " Really?", q.choices, q.answer) for q in QUESTIONS]
    before = answer_questions(decoder, tokenizer, QUESTIONS, chat=True)
    after = answer_questions(decoder, tokenizer, changed, chat=True)
    for a, b, question in zip(before, after, QUESTIONS, strict=True):
        assert a.alone == pytest.approx(b.alone) and a.likelihoods != pytest.approx(b.likelihoods)
        offered = offer(tokenizer, NO_QUESTION, question.choices, chat=True)
        assert a.alone == pytest.approx([recomputed(decoder, offered.context, c) for c in offered.choices], abs=1e-3)


def prediction(likelihoods: list[float], alone: list[float], answer: int = 0, group: str = "seen") -> Prediction:
    return Prediction(Question("q", group, "what", "?", ("ab", "ööö")[: len(alone)], answer), likelihoods, alone)


def test_each_score_normalises_as_it_says() -> None:
    one = prediction([-4.0, -6.6], [-1.0, -5.0])
    assert one.scores("sum") == [-4.0, -6.6]
    assert one.scores("per_character") == pytest.approx([-2.0, -2.2])
    assert one.scores("per_byte") == pytest.approx([-2.0, -1.1])
    assert one.scores("information") == pytest.approx([-3.0, -1.6])
    right = [one.is_right(name) for name in ("sum", "per_character", "per_byte", "information")]
    assert right == [True, True, False, False]
    assert prediction([-2.0, -6.0], [0, 0]).is_right()  # equal scores: the first


def test_summary_by_hand() -> None:
    predictions = [prediction([-1.0, -9.0], [-9.0, -1.0]) for _ in range(30)]
    predictions += [prediction([-9.0, -1.0], [-9.0, -1.0], group="unseen") for _ in range(10)]
    data = summarise(predictions, chat=False)
    assert (data["questions"], data["accuracy"], data["answers_alone"], data["chance"]) == (40, 0.75, 0.0, 0.5)
    assert data["accuracy_interval"] == [wilson(30, 40).low, wilson(30, 40).high]
    assert data["by_group"]["seen"]["accuracy"] == 1.0 and data["by_group"]["unseen"]["accuracy"] == 0.0
    assert data["over_answers_alone"]["difference"] == 0.75 and data["over_answers_alone"]["p_value"] < 1e-8
    # Without the answers' own likelihood the unseen ones are equal, and the first is taken.
    assert data["accuracy_by_score"]["information"] == 1.0
    json.dumps(data, allow_nan=False)


def test_a_question_that_does_not_fit_is_named(decoder: Decoder, tokenizer: Tokenizer) -> None:
    long = Question("long-one", "", "", "word " * 300, ("a", "b"), 0)
    with pytest.raises(UserError, match=r"question long-one: .* exceed the context of 128"):
        answer_questions(decoder, tokenizer, [long], chat=False)


def test_chat_needs_a_template(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    data = json.loads((folder / "tokenizer_config.json").read_text())
    data.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(data))
    plain = Tokenizer.load(folder)
    assert not asks_by_chat(plain, "auto")
    with pytest.raises(UserError, match="no chat template"):
        asks_by_chat(plain, "chat")


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "row",
    ['{"question": "q", "choices": ["a"], "answer": 0}', '{"question": "q", "choices": ["a", "b"], "answer": 2}',
     '{"question": "q", "choices": ["a", ""], "answer": 0}', "[1]", "{", '{"choices": ["a", "b"], "answer": 0}'],
)  # fmt: skip
def test_malformed_questions_are_errors_with_their_place(tmp_path: Path, row: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "q", "choices": ["a", "b"], "answer": 1}\n' + row + "\n")
    with pytest.raises(UserError, match=r"questions\.jsonl"):
        read_questions(file)


def test_budget_keeps_documents_whole_and_says_so(tokenizer: Tokenizer) -> None:
    texts = ["The path module.", "", "It splits text into parts.", "Which module?"]
    sizes = [len(tokenizer.encode(text)) for text in texts]
    everything = read_documents(tokenizer, iter(texts))
    assert everything.whole and everything.tokens == sum(sizes)
    assert everything.bytes == sum(map(len, texts)) and everything.lossy == 0
    some = read_documents(tokenizer, iter(texts), sizes[0] + sizes[2] + 1)
    assert not some.whole and [d.content.decode() for d in some.each] == [texts[0], texts[2]]
    cut = read_documents(tokenizer, iter(["ö" * 50]), 20)
    assert not cut.whole and 15 <= cut.tokens <= 20
    assert tokenizer.encode(cut.each[0].content.decode()) == cut.each[0].ids


def write_texts(file: Path, texts: list[str]) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def test_a_budget_draws_from_all_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["", *(f"{letter} splits text." for letter in "ABCDEFGHIJKLMNOPQRST")]
    file = write_texts(tmp_path / "t.jsonl", texts)
    total = sum(len(tokenizer.encode(text)) for text in texts)
    drawn = Counter[str]()
    for seed in range(100):
        sample = sample_documents(tokenizer, file, total // 4 + 1, seed)
        assert (sample.of_documents, sample.of_tokens) == (20, total) and not sample.documents.whole
        assert total / 4 * 0.85 <= sample.documents.tokens <= total // 4 + 1
        drawn.update(document.content.decode() for document in sample.documents.each)
    assert set(drawn) == set(texts[1:]), "every document can be drawn, the last as well as the first"
    assert max(drawn.values()) <= 45 and min(drawn.values()) >= 8
    again = sample_documents(tokenizer, file, total // 4 + 1, 99)
    assert again.documents.each == sample.documents.each
    everything = sample_documents(tokenizer, file, total, 0)
    assert everything.documents.whole and everything.documents.tokens == total


def test_what_does_not_fit_the_budget_is_passed_over_and_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    short, long = "It splits text.", "The path module joins paths. " * 40
    file = write_texts(tmp_path / "t.jsonl", [long, *[short] * 4, long])
    size = len(tokenizer.encode(short))
    for seed in range(8):
        sample = sample_documents(tokenizer, file, 4 * size, seed)
        assert [document.content.decode() for document in sample.documents.each] == [short] * 4
        assert sample.passed_over <= 2 and not sample.cut
    assert {sample_documents(tokenizer, file, 4 * size, seed).passed_over for seed in range(8)} > {0}
    only = sample_documents(tokenizer, write_texts(tmp_path / "u.jsonl", [long, long]), 20, 0)
    assert only.cut and only.passed_over == 1 and 15 <= only.documents.tokens <= 20


def test_a_text_file_is_read_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"a\r\nb\xc3\xb6")
    assert list(read_texts(tmp_path / "t.txt")) == ["a\r\nbö"]
    (tmp_path / "t.txt").write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 1\)"):
        list(read_texts(tmp_path / "t.txt"))


# ---------------------------------------------------------------------- the verb


def evaluate(**settings: object) -> dict:
    config = EvaluateModel.parse({"dtype": "float32", "device": "cpu", "threads": 1, **settings})
    return execute(EVAL, plan_evaluate(config, Specs()), Quiet()).data


def test_eval_of_a_text_has_the_fixed_keys(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    data = evaluate(model=str(folder), text=tmp_path / "t.txt")
    assert data["bytes"] == len(TEXT) and data["tokens"] == len(Tokenizer.load(folder).encode(TEXT))
    assert data["bits_per_byte"] == pytest.approx(math.log2(data["perplexity"]) * data["tokens"] / data["bytes"])
    assert "kl_mean" not in data and data["context"] == 128 and data["stride"] == 64


def test_a_budget_measures_model_and_baselines_on_the_same_documents(folder: Path, tmp_path: Path) -> None:
    texts = [f"{letter}: {TEXT[: 30 + 3 * place]}" for place, letter in enumerate("ABCDEFGHIJKL")]
    file = write_texts(tmp_path / "t.jsonl", texts)
    write_texts(tmp_path / "train.jsonl", [TEXT])
    other = make_model(tmp_path / "other", vocabulary=280)
    settings = {"text": file, "baselines": tmp_path / "train.jsonl", "against": str(other), "max_tokens": 60}
    data = evaluate(model=str(folder), **settings)
    assert data["baselines"]["held_out_bytes"] == data["bytes"] == data["reference"]["bytes"]
    assert data["of_documents"] == 12 and 0 < data["documents"] < 12 and data["tokens"] <= 60 < data["of_tokens"]
    notes = " ".join(block.note for block in evaluation_blocks(data) if isinstance(block, Table))
    assert f"{data['documents']} of 12 documents, {data['tokens']} of {data['of_tokens']} tokens" in notes
    others = [evaluate(model=str(folder), **settings, seed=seed)["bytes"] for seed in range(1, 5)]
    assert set(others) != {data["bytes"]}, "another seed draws others"


def test_eval_against_itself_and_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    same = evaluate(model=str(folder), text=tmp_path / "t.txt", against=str(folder))
    assert (same["kl_mean"], same["kl_p99"], same["top1_agreement"]) == (0.0, 0.0, 1.0)
    other = make_model(tmp_path / "other", seed=1)
    differs = evaluate(model=str(folder), text=tmp_path / "t.txt", against=str(other))
    assert differs["kl_mean"] > 0.1 and differs["top1_agreement"] < 1
    assert differs["bits_per_byte"] == pytest.approx(same["bits_per_byte"], rel=1e-4)


def test_eval_against_another_tokenizer_gives_bits_per_byte_only(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": TEXT[i:]}) + "\n" for i in range(5)))
    other = make_model(tmp_path / "other", vocabulary=280)
    data = evaluate(model=str(folder), text=tmp_path / "t.jsonl", against=str(other))
    assert not {"kl_mean", "kl_p99", "top1_agreement"} & data.keys()
    assert "kl_mean" in data["not_comparable"]
    assert data["reference"]["bytes"] == data["bytes"] and data["reference"]["tokens"] != data["tokens"]
    gap = data["bits_per_byte"] - data["reference"]["bits_per_byte"]
    assert data["bits_per_byte_difference"] == pytest.approx(gap)


def test_eval_of_everything_is_an_artefact_and_shows(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [{"id": str(i), "text": TEXT * 2 + str(i)} for i in range(6)]
    (corpus / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    (corpus / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    asked = [{**vars(q), "choices": list(q.choices)} for q in QUESTIONS]
    (corpus / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    out = tmp_path / "evaluation"
    config = EvaluateModel.parse(
        {"model": str(folder), "text": corpus, "baselines": corpus, "questions": corpus, "against": str(folder),
         "out": out, "dtype": "float32", "device": "cpu", "threads": 1}
    )  # fmt: skip
    plan = plan_evaluate(config, Specs())
    assert plan.cost.seconds and plan.cost.flops and len(plan.work) == 3
    assert plan.produces == EvaluationSpec(("text", "comparison", "baselines", "choice"))
    result = execute(EVAL, plan, Quiet())
    assert read_evaluation(out) == json.loads(json.dumps(result.data)) and EvaluationSpec.read(out) == plan.produces
    baselines = result.data["baselines"]
    assert baselines["held_out_bytes"] == result.data["bytes"] and baselines["xz_primed"] < baselines["xz"]
    predictions = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in predictions] == ["q1", "q2", "q3"]
    accuracy = sum(row["predicted"] == row["answer"] for row in predictions) / 3
    assert result.data["choice"]["accuracy"] == accuracy and result.data["choice"]["prompt"] == "chat"
    page = render_report("r", [Section("Evaluation", result.view)])
    for words in ("Bits per byte of held-out text", "Never seen in training", "Distance from the reference", "McNemar"):
        assert words in page
    assert "nan" not in page.lower().replace("answer", "")


def test_a_corpus_without_questions_is_said_and_a_file_without_them_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    (tmp_path / "questions.jsonl").write_text("")
    data = evaluate(model=str(folder), text=tmp_path, questions=tmp_path)
    assert "choice" not in data and "no questions" in data["not_asked"]
    with pytest.raises(UserError, match=r"questions: .*0 B"):
        evaluate(model=str(folder), questions=tmp_path / "questions.jsonl")
    with pytest.raises(UserError, match="nothing to measure"):
        evaluate(model=str(folder), questions=tmp_path)


def test_what_does_not_fit_is_said_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(UserError, match="nothing to measure"):
        evaluate(model=str(folder))
    for seed in (-1, 2**64):
        with pytest.raises(UserError, match="seed"):
            evaluate(model=str(folder), text=tmp_path / "t.txt", seed=seed)
    with pytest.raises(UserError, match="give text too"):
        evaluate(model=str(folder), questions=tmp_path / "q.jsonl", against=str(folder))
    with pytest.raises(UserError, match="stride 9 is longer than context 8"):
        evaluate(model=str(folder), text=tmp_path / "t.txt", context=8, stride=9)
    with pytest.raises(UserError, match="context: 500 of 128 tokens"):
        evaluate(model=str(folder), text=tmp_path / "t.txt", context=500)
    with pytest.raises(UserError, match="there is no file"):
        evaluate(model=str(folder), text=tmp_path / "missing.txt")
    (folder / "tokenizer.json").rename(tmp_path / "kept.json")
    try:
        with pytest.raises(UserError, match=r"has none"):
            evaluate(model=str(folder), text=tmp_path / "t.txt")
    finally:
        (tmp_path / "kept.json").rename(folder / "tokenizer.json")
