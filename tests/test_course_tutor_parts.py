"""What the tutor is made of: terms of a question, sentences of a text, the rule of support, what follows an answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bottega.clients.endpoint import Endpoint
from bottega.course.learner.learner import Learner
from bottega.course.library import load_course
from bottega.course.tutor.corpus import emphasised, run_passages
from bottega.course.tutor.query import Lexicon, initials
from bottega.course.tutor.search import Material
from bottega.course.tutor.sentences import sentences, supporting, supports
from bottega.course.tutor.tutor import Tutor
from bottega.retrieve.bm25 import Bm25
from chat_server import chat_server
from conftest import Call

TEXTS = (
    "Tensor parallelism cuts every matrix of the language model.",
    "Zero shards the optimizer; float16 is half precision.",
    "Model FLOPs utilisation is the share that is reached. Attention looks back.",
)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(Bm25.build(TEXTS), frozenset(["attention", "utiliz"]), initials(["Model FLOPs utilisation"]))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.of(load_course(), tmp_path_factory.mktemp("material"))


@pytest.mark.parametrize(
    ("question", "way"),
    [
        ("What is MFU?", ("model", "flop", "utiliz")),  # initials
        ("Explain tensor parallel", ("parallelism",)),  # a shared beginning
        ("What is fp16?", ("float16",)),  # a synonym
        ("an LLM", ("languag", "model")),
        ("a language model", ("llm",)),  # and back
        ("What is atention?", ("attention",)),  # a letter is missing
        ("What is attentoin?", ("attention",)),  # two are exchanged
        ("a 7B one", ("billion",)),
    ],
)
def test_a_term_is_found_under_other_names(lexicon: Lexicon, question: str, way: tuple[str, ...]) -> None:
    assert any(way in term.ways for term in lexicon.terms(question)), lexicon.terms(question)


def test_words_of_no_subject(lexicon: Lexicon) -> None:
    terms = {next(iter(term.ways))[0]: term for term in lexicon.terms("How can one really choose a better ZeRO zebra?")}
    assert [terms[word].general for word in ("choos", "better", "zero", "zebra")] == [True, True, False, False]
    assert terms["zero"].name
    assert lexicon.terms("can't it? what's that") == []


def test_a_name_that_is_unknown_is_no_other_word(lexicon: Lexicon) -> None:
    ways = [set(term.ways) for term in lexicon.terms("Does ModelRank or Float16-X beat MODEL-9?")]
    assert ways[:3] == [{("modelrank",)}, {("float16-x",)}, {("beat",)}] and ways[3] == {("model-9",)}


def test_sentences_of_markdown() -> None:
    text = "# Head\n\nOne is. *Two* is:\n\n$$\na = b\n$$\n\nThree e.g. is.\n\n- four\n- five six\n\n"
    table = "```\ncode. Code.\n```\n\n| a | b |\n|---|---|\n| left one | right one |\n"
    found = ["One is.", "*Two* is: $$ a = b $$", "Three e.g. is.", "five six", "left one | right one"]
    assert sentences(text + table) == found
    assert sentences("第一句。第二句（完）。第三句！") == ["第一句。", "第二句（完）。", "第三句！"]
    assert emphasised("*Packing* is not **20 tokens** or a * b * c. *The common mistake*: x") == [
        "Packing",
        "20 tokens",
    ]


SOURCE = (
    "You will often read that FlashAttention makes attention linear, but only its memory grows linearly, by 4 bytes."
)


@pytest.mark.parametrize(
    ("source", "sentence", "good"),
    [
        (SOURCE, SOURCE, True),
        (SOURCE, "FlashAttention makes attention linear.", False),  # what is often read is not what is
        (SOURCE, "You will often read that its memory grows linearly.", False),  # put together from two halves
        ("Only the memory is linear.", "The memory is linear.", False),
        ("Only the memory is linear.", "Thus only the memory is linear.", True),
        ("A costs 4 and B costs 8.", "A costs 8.", False),  # the numbers between were left out
        ("A costs 4 and B costs 8.", "A costs 4.", True),
        ("If the mask leaks, the loss is zero.", "The loss is zero.", False),
        ("The loss is larger than the entropy.", "The entropy is larger than the loss.", False),
        ("The loss is larger than the entropy.", "The loss is larger the entropy.", False),
        ("T < 1 makes the likely likelier.", "T > 1 makes the likely likelier.", False),
        ("Beams rarely help.", "Beams help.", False),
        ("It does not grow.", "It does grow.", False),
        ("It grows.", "It doesn't grow.", False),
        ("The first layer finds the thing, in our small model.", "The first layer finds the thing.", True),
    ],
)
def test_what_a_source_supports(source: str, sentence: str, good: bool) -> None:
    assert supports(source, sentence) is good
    assert (supporting(sentence, f"Before. {source} After.") is not None) is good


def test_a_chinese_question_is_answered_in_chinese(material: Material) -> None:
    found = material.search("什么是束搜索？")
    assert found[0].passage.language == "zh" and found[0].passage.anchor == "/course/architecture#beam-search"
    assert all(each.passage.language == "en" for each in material.search("What is beam search?"))


def test_no_question_or_empty_text_breaks_it(material: Material) -> None:
    for question in (
        "",
        "?",
        "the of and",
        "a" * 10_000,
        "\x00\ud800"[:1],
        "((((",
        "word " * 2000,
        "$$",
        "《》",
        "1 2 3",
    ):
        material.search(question)


def test_runs_are_for_questions_on_runs(tmp_path: Path) -> None:
    for name, rate in (("old", 0.5), ("new", 0.0123)):
        folder = tmp_path / name
        folder.mkdir()
        record = {
            "verb": "train", "started": "2026-01-01T10:00", "config": {"learning_rate": None, "size": "small"},
            "metrics": {"loss": 1.25, "learning_rate": rate},
        }  # fmt: skip
        (folder / "record.json").write_text(json.dumps(record))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    assert len(list(run_passages(tmp_path))) == 2
    tutor = Tutor(load_course(), None, workspace=tmp_path)
    answer = tutor.ask("Which learning rate did I use in my run new?")
    assert "0.0123" in answer.answer and answer.citations[0].anchor == "/runs#run-new"
    assert all(cite.kind == "lesson" for cite in tutor.ask("Why warm up the learning rate?").citations)


def test_the_last_mistake_is_explained_and_a_question_asked(tmp_path: Path) -> None:
    learner = Learner.open(load_course(), tmp_path / "course", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    tutor = Tutor(learner.course, learner, workspace=tmp_path)
    asked, item = "What question does a language model answer?", "too-good-a-start"
    first = tutor.ask(asked)
    assert first.citations[0].anchor == "/course/architecture#next-token" and first.mistake == ""
    assert first.question is not None and first.question.concept == "next-token-prediction"
    shown = learner.question(item, 0)
    wrong, right = ("The learning rate is too small.", "The inputs already hold the answer.")
    learner.answer(item, 0, shown.options.index(wrong))
    told = tutor.ask(asked).mistake
    assert told.endswith("you were wrong. Before the first step it has had no influence.") and shown.stem in told
    assert right not in told
    assert tutor.ask("When is beam search useful?").mistake == ""  # another subject
    learner.answer(item, 0, shown.options.index(right))
    assert tutor.ask(asked).mistake == ""
    following, expected = tutor.next_question(), learner.next_item()
    assert following is not None and expected is not None and following.item == expected[0].id
    assert Tutor(learner.course, None, workspace=tmp_path).next_question() is None


def test_what_a_model_may_not_say(material: Material, tmp_path: Path) -> None:
    """Corruptions of a true sentence are dropped, each time; the true ones stay, with the words that support them."""
    source = next(p for p in material.passages if p.anchor == "/course/architecture#greedy" and p.language == "en").text
    true = next(text for text in sentences(source) if "probability" in text and "draw" in text)
    lies = [true.replace("probability", "entropy"), f"It is not so that {true}", " ".join(reversed(true.split()))]
    course = load_course()
    with chat_server(lambda _body: f"{true} [1] {lies.pop()} [1]") as server:
        tutor = Tutor(course, None, Endpoint(server.url, "judge", retries=0), tmp_path)
        for _ in range(3):
            answer = tutor.ask("What does the temperature do when words are drawn?")
            assert [cite.quote for cite in answer.citations] == [true], answer
            assert answer.answer == f"{true.rstrip('.')}. [1]"
    assert not lies


def test_a_model_that_is_away_or_cites_nothing_is_not_needed(tmp_path: Path) -> None:
    course, question = load_course(), "What does the temperature do?"
    plain = Tutor(course, None, workspace=tmp_path).ask(question)
    assert Tutor(course, None, Endpoint("http://127.0.0.1:9", "m", retries=0), tmp_path).ask(question) == plain
    for said in ("", "It evens out.", "It evens out [7]", "[1] [1]", "[1]" * 50):
        with chat_server(lambda _body, said=said: said) as server:
            assert Tutor(course, None, Endpoint(server.url, "m", retries=0), tmp_path).ask(question) == plain


def test_the_verb_and_its_names(bottega: Call, tmp_path: Path) -> None:
    status, out, _ = bottega("course", "ask", "What is RMSNorm?", "--json")
    data = json.loads(out)
    assert status == 0 and {"answer", "citations", "abstained"} <= data.keys()
    assert {"title", "anchor", "quote", "kind"} == data["citations"][0].keys() and data["abstained"] is False
    assert json.loads(bottega("course", "ask", "Who won the world cup?", "--json")[1])["abstained"] is True
    assert "/course/architecture#block" in bottega("course", "ask", "What is RMSNorm?")[1]
