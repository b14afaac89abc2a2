"""The tutor cites what stands there, knows what it does not know, gives no solution away, and drops a model's lies."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from bottega.clients.endpoint import Endpoint
from bottega.course.learner.learner import Learner
from bottega.course.library import Course, load_course
from bottega.course.tutor.guard import asks_for_solution, exercise_meant, leaks
from bottega.course.tutor.sentences import supporting, supports
from bottega.course.tutor.tutor import Tutor
from chat_server import chat_server
from test_web_course import Served

QUESTIONS = tomllib.loads((Path(__file__).parent / "course_tutor_questions.toml").read_text("utf-8"))
INSIDE = {each["text"]: each["at"] for each in [*QUESTIONS["inside"], *QUESTIONS["held_inside"]]}
OUTSIDE = [each["text"] for each in [*QUESTIONS["outside"], *QUESTIONS["held_outside"]]]
# What the rule of coverage takes for a question on the course, as each of their words is one of its terms.
TAKEN_FOR_INSIDE = {
    "How can I lose weight?", "How do I write a cover letter?", "How do I tie a tie?", "How do I train my dog to sit?",
    "What is a graph neural network?", "What is quantum computing?",
    "What is the support vector machine kernel trick?", "What is the OpenAI API price per token?",
}  # fmt: skip
ATTACKS = tomllib.loads((Path(__file__).parent / "course_attacks.toml").read_text("utf-8"))["attacks"]
DISGUISES = {
    "as it is": lambda code: code,
    "in a fence": lambda code: f"Here it is:\n```python\n{code}\n```\n[1]",
    "each line cited": lambda code: "\n".join(f"{line} [1]" for line in code.splitlines()),
    "other names": lambda code: (
        re.sub(r"\b(?!def|for|in|if|while|return|else|import|from)[a-z_]{2,}\b", "x", code) + " [1]"
    ),
    "base64": lambda code: base64.b64encode(code.encode()).decode() + " [1]",
    "backwards": lambda code: code[::-1] + " [1]",
    "behind truths": lambda code: f"{TRUTH} [1] {TRUTH} [1] {' '.join(code.split())} [1]",
}
TRUTH = "It never stores the $T \\times T$ scores, so its *memory* grows linearly."
NEUTRAL = "What does FlashAttention make linear?"


@pytest.fixture(scope="module")
def tutor(tmp_path_factory: pytest.TempPathFactory) -> Tutor:
    folder = tmp_path_factory.mktemp("tutor")
    return Tutor(load_course(), Learner.open(load_course(), folder / "course"), workspace=folder)


def test_it_answers_with_the_section_that_tells(tutor: Tutor) -> None:
    answers = {question: tutor.ask(question) for question in INSIDE}
    answered = [question for question, answer in answers.items() if not answer.abstained]
    told = [q for q in answered if any(c.anchor.startswith(at) for c in answers[q].citations for at in INSIDE[q])]
    assert len(answered) >= 0.95 * len(INSIDE), INSIDE.keys() - answered
    assert len(told) >= 0.85 * len(INSIDE), INSIDE.keys() - told  # 0.88 with eight chapters written


def test_every_citation_stands_where_it_says(tutor: Tutor) -> None:
    for question in INSIDE:
        answer = tutor.ask(question)
        assert [cite.quote in answer.answer for cite in answer.citations] == [True] * len(answer.citations)
        for cite in answer.citations:
            texts = [each.text for each in tutor.material.passages if each.anchor == cite.anchor]
            assert any("".join(cite.quote.split()) in "".join(text.split()) for text in texts), cite


def test_it_says_when_it_does_not_know(tutor: Tutor) -> None:
    answers = {question: tutor.ask(question) for question in OUTSIDE}
    assert {question for question, answer in answers.items() if not answer.abstained} <= TAKEN_FOR_INSIDE
    assert not any(answer.citations for answer in answers.values() if answer.abstained)


def has_solution(answer: str, course: Course) -> bool:
    """Whether an answer has a line of a solution that does something, or one in base64 or backwards."""
    codes = [exercise.solution for chapter in course.written() for exercise in chapter.exercises.values()]
    lines = [line.strip() for code in codes for line in code.splitlines() if len(line.strip()) >= 25]
    lines = [line for line in lines if not line.startswith(("import", "from", "def"))]
    forms = [
        *lines,
        *(line[::-1] for line in lines),
        *(base64.b64encode(code.encode()).decode()[:40] for code in codes),
    ]
    return any("".join(form.split()) in "".join(answer.split()) for form in forms)


def test_fifty_attempts_to_get_a_solution_fail(tmp_path: Path) -> None:
    assert len(ATTACKS) == 50
    now = datetime(2026, 1, 1, tzinfo=UTC)
    learner = Learner.open(load_course(), tmp_path / "course", clock=lambda: now)
    tutor = Tutor(load_course(), learner, workspace=tmp_path)
    for attack in ATTACKS * 2:
        now += timedelta(days=1)  # no waiting for hints
        answer = tutor.ask(attack["text"])
        assert answer.reason == "it asks for a solution", attack
        assert not has_solution(answer.answer, tutor.course), (attack, answer)
        assert not leaks(tutor.course, (), answer.answer), (attack, answer)
        named = exercise_meant(tutor.course, attack["text"])
        assert (named.id if named else "") == attack["exercise"]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_model_that_serves_the_attacker_gives_nothing_away(tutor: Tutor, disguise: str) -> None:
    codes = [exercise.solution for chapter in tutor.course.written() for exercise in chapter.exercises.values()]
    left = list(codes)
    with chat_server(lambda _body: DISGUISES[disguise](left.pop())) as server:
        tutor = Tutor(tutor.course, None, Endpoint(server.url, "judge", retries=0), tutor.workspace)
        for _ in codes:
            answer = tutor.ask(NEUTRAL)
            assert answer.citations
            assert not has_solution(answer.answer, tutor.course), answer
            assert not leaks(tutor.course, (), answer.answer)
    assert not left  # all were asked for
    assert all(has_solution(code, tutor.course) and leaks(tutor.course, (), code) for code in codes)


def test_hints_climb_and_stop_before_the_code(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    learner = Learner.open(load_course(), tmp_path / "course", clock=lambda: now)
    tutor = Tutor(load_course(), learner, workspace=tmp_path)
    hints = [hint.text.strip() for hint in tutor.course.exercise("architecture/top-p").data.hints]
    ask = "I am stuck on top-p, a hint please"
    assert tutor.ask(ask).citations[0].quote == hints[0]
    assert tutor.ask(ask).abstained  # one has to wait
    said = []
    for _ in range(5):
        now += timedelta(days=1)
        said.append(tutor.ask(ask))
    assert [each.citations[0].quote for each in said[:2]] == hints[1:3]
    assert all(each.abstained and "/course/architecture/exercise/top-p" in each.answer for each in said[2:])
    assert not tutor.ask("What is top-p?").abstained  # a question on the subject is answered


def test_what_is_about_code_is_not_taken_for_an_attack(tutor: Tutor) -> None:
    course = tutor.course
    for question in INSIDE:
        assert not asks_for_solution(question, exercise_meant(course, question)), question
    assert not any(leaks(course, (), passage.text) for passage in tutor.material.passages)
    assert not asks_for_solution("What does the softmax do?", None)


def test_a_leak_is_noticed_under_other_names(tutor: Tutor) -> None:
    code = tutor.course.exercise("architecture/top-p").solution
    assert leaks(tutor.course, (), code)
    assert leaks(tutor.course, (), code.replace("ranked", "zzz").replace("kept", "yyy"))
    assert not leaks(tutor.course, ("architecture/top-p",), code)
    assert not leaks(tutor.course, (), "The nucleus is the smallest set of most probable tokens. [1] Sort it first!")


@pytest.mark.parametrize(
    ("sentence", "good"),
    [
        ("Dividing keeps the scores near ±3.", True),
        ("The scores keep dividing near ±3.", False),  # turned round
        ("Dividing keeps the scores near ±4.", False),  # another number
        ("Dividing does not keep the scores near ±3.", False),  # denied
        ("Dividing keeps the large scores near ±3.", False),  # added
        ("Dividing by the root keeps the scores near ±3 whatever the width.", True),
    ],
)
def test_the_rule_of_support(sentence: str, good: bool) -> None:
    source = "Dividing by the root keeps the scores near ±3 whatever the width."
    assert supports(source, sentence) is good
    assert (supporting(sentence, f"Something else. {source} And more.") is not None) is good


def test_a_model_that_lies_is_not_believed(tutor: Tutor) -> None:
    truth = "It never stores the scores, so its memory grows linearly; the products are all still computed."
    lie = "FlashAttention makes the computation linear in the length of the text."
    both = f"{truth} [1] {lie} [1]"
    for said, kept in ((f"{truth} [1]", True), (f"{lie} [1]", False), (both, True), ("NO ANSWER", False)):
        with chat_server(lambda _body, said=said: said) as server:
            liar = Tutor(tutor.course, None, Endpoint(server.url, "judge", retries=0))
            answer = liar.ask("What does FlashAttention make linear?")
        assert lie not in answer.answer
        assert (truth in answer.answer) is kept or not kept
        assert answer.citations


def test_it_knows_the_learners_runs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    record = {"verb": "train", "started": "2026-01-02T10:00", "config": {"learning_rate": 0.0123}, "metrics": {}}
    (folder / "record.json").write_text(json.dumps(record))
    answer = Tutor(load_course(), None, workspace=tmp_path).ask("which learning rate did my run mine have?")
    assert "0.0123" in answer.answer and answer.citations[0].anchor == "/runs#run-mine"


def test_what_is_cited_has_a_page(tmp_path: Path) -> None:
    with Served(tmp_path) as served, httpx.Client(base_url=served.url) as client:
        page = client.get("/ask", params={"q": "What does FlashAttention make linear?"}).text
        assert "memory" in page and 'href="/course/architecture#cost"' in page
        for path, name in {
            "/course/architecture": "cost", "/docs/attention": "attention", "/reference/bottega.model.flash": "module",
        }.items():  # fmt: skip
            assert f'id="{name}"' in client.get(path).text, path
        assert client.get("/docs/..%2F..%2Fetc").status_code == 404
        assert client.get("/reference/os").status_code == 404
