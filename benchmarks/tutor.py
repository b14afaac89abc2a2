"""How well the tutor finds, abstains and keeps silent, and what its rule of support lets through and refuses.

    python benchmarks/tutor.py [--questions FILE …] [--quick] [--show]

Files have `[[inside]]` (text, at: addresses of which one has to be cited) and `[[outside]]` (text). The rule of
support (course/tutor/sentences.py) is tried on sentences of the lessons: corrupted in ways that make them false, which
it should refuse, and shortened or put in other words without harm, which it may accept. --show prints what of the
first it accepted.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bottega.course.library import load_course
from bottega.course.tutor.guard import leaks
from bottega.course.tutor.sentences import LIMITS, sentences, supporting
from bottega.course.tutor.tutor import Tutor
from bottega.retrieve.words import STOP_WORDS, stem, words

TESTS = Path(__file__).parents[1] / "tests"
OPPOSITE = {
    "more": "less", "larger": "smaller", "large": "small", "first": "last", "before": "after", "above": "below",
    "higher": "lower", "high": "low", "rises": "falls", "faster": "slower", "good": "bad", "longer": "shorter",
    "most": "least", "never": "always", "all": "no", "every": "no", "with": "without", "begins": "ends", "many": "few",
    "costs": "saves", "best": "worst", "right": "wrong", "too": "not", "fewer": "more", "less": "more",
    "small": "large",
}  # fmt: skip
# What the lessons say, in other words: true, but the rule compares words.
PARAPHRASES = {
    "/course/architecture#greedy": "Dividing the logits by a temperature below one sharpens the distribution.",
    "/course/architecture#mask": "A token is only allowed to attend to itself and its predecessors.",
    "/course/architecture#cost": "The number of products in FlashAttention remains quadratic.",
    "/course/architecture#merges": "BPE starts with bytes and repeatedly joins the commonest pair.",
    "/course/architecture#heads": "The width is split among several heads.",
    "/course/architecture#stream": "Layers add to the stream and overwrite nothing.",
    "/course/architecture#positions": "Scores depend on how far apart two tokens are.",
    "/course/pre-training#packing": "Packing concatenates documents into full rows.",
    "/course/pre-training#mixed": "bfloat16 covers the same range as float32.",
    "/course/pre-training#floor": "Perplexity equals e to the power of the loss.",
    "/course/pre-training#data-parallel": "Every machine holds a full copy of the model.",
    "/course/pre-training#compute-optimal": "Chinchilla says that size and data should grow together.",
}
SHOW = False
Change = Callable[[str, str, random.Random], str | None]


def number_changed(text: str, _: str, draw: random.Random) -> str | None:
    """Another number in place of one."""
    found = list(re.finditer(r"\d+(?:[.,]\d+)*", text))
    if not found:
        return None
    at = draw.choice(found)
    return text[: at.start()] + str(draw.randint(100, 999)) + text[at.end() :]


def denied(text: str, _: str, draw: random.Random) -> str | None:
    """A `not` more, or one less."""
    if re.search(r"\b(not|never)\b", text):
        return re.sub(r"\b(not|never)\b ?", "", text, count=1)
    parts = text.split(" ")
    at = draw.randrange(1, max(len(parts), 2))
    return " ".join([*parts[:at], "not", *parts[at:]])


def words_exchanged(text: str, _: str, draw: random.Random) -> str | None:
    """Two content words in each other's place."""
    return _exchanged(text, draw, near=False)


def neighbours_exchanged(text: str, _: str, draw: random.Random) -> str | None:
    """Two content words that are close in each other's place."""
    return _exchanged(text, draw, near=True)


def word_replaced(text: str, other: str, draw: random.Random) -> str | None:
    """A content word of another sentence of the passage in place of one."""
    mine, others = _content(text), [word for word in _content(other) if word.lower() not in text.lower()]
    if not mine or not others:
        return None
    return re.sub(rf"\b{re.escape(draw.choice(mine))}\b", draw.choice(others), text, count=1)


def turned(text: str, _: str, draw: random.Random) -> str | None:
    """The opposite of a word."""
    found = [word for word in OPPOSITE if re.search(rf"\b{word}\b", text)]
    if not found:
        return None
    word = draw.choice(found)
    return re.sub(rf"\b{word}\b", OPPOSITE[word], text, count=1)


def limit_dropped(text: str, _: str, draw: random.Random) -> str | None:
    """Without a word that limits it: only, most, if, often."""
    found = [word for word in text.split() if stem(re.sub(r"\W", "", word.lower())) in LIMITS]
    if not found:
        return None
    parts = text.split()
    parts.remove(draw.choice(found))
    return " ".join(parts)


def halves_joined(text: str, other: str, _: random.Random) -> str | None:
    """The beginning of one sentence and the end of another."""
    mine, others = text.split(), other.split()
    return " ".join([*mine[: len(mine) // 2], *others[len(others) // 2 :]]) if len(mine) > 5 < len(others) else None


def from_elsewhere(_text: str, other: str, _: random.Random) -> str | None:
    """A true sentence, but of another passage."""
    return other


def numbers_mixed(text: str, _: str, __: random.Random) -> str | None:
    """The first number left out with the words around it, so that another stands for it."""
    found = list(re.finditer(r"\S*\d\S*", text))
    if len(found) < 2:
        return None
    return text[: found[0].start()] + text[found[1].start() :]


CORRUPTIONS: Sequence[Change] = (
    number_changed, numbers_mixed, denied, words_exchanged, neighbours_exchanged, word_replaced, turned, limit_dropped,
    halves_joined, from_elsewhere,
)  # fmt: skip


def verbatim(text: str, _: str, __: random.Random) -> str | None:
    """As it stands."""
    return text


def parenthesis_dropped(text: str, _: str, __: random.Random) -> str | None:
    """Without what stands in brackets."""
    short = re.sub(r" ?\([^()]*\)", "", text)
    return short if short != text else None


def marks_dropped(text: str, _: str, __: random.Random) -> str | None:
    """Without emphasis, articles exchanged."""
    return re.sub(r"\bthe\b", "a", text.replace("*", ""))


def connected(text: str, _: str, __: random.Random) -> str | None:
    """With a connective before it."""
    return f"Therefore, {text[0].lower()}{text[1:]}"


def end_dropped(text: str, _: str, __: random.Random) -> str | None:
    """Without what follows the last comma or semicolon."""
    head, mark, _rest = text.rpartition(", ") if ", " in text else text.rpartition("; ")
    return f"{head}." if mark and len(head.split()) > 4 else None


SHORTENED: Sequence[Change] = (verbatim, marks_dropped, connected, parenthesis_dropped, end_dropped)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", nargs="*", type=Path, default=[TESTS / "course_tutor_questions.toml"])
    parser.add_argument("--quick", action="store_true", help="only the questions")
    parser.add_argument("--show", action="store_true", help="also what the rule of support let through")
    options = parser.parse_args()
    global SHOW
    SHOW = options.show
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tutor = Tutor(load_course(), None, workspace=Path(folder))
        made = time.perf_counter() - start
        start = time.perf_counter()
        Tutor(load_course(), None, workspace=Path(folder))
        read = time.perf_counter() - start
        print(f"{len(tutor.material.passages)} passages; index made in {made:.2f} s, read in {read:.2f} s")
    for path in options.questions:
        questions(tutor, path)
    if not options.quick:
        attacks(tutor)
        support(tutor)


def questions(tutor: Tutor, path: Path) -> None:
    """Answers, the addresses cited, and what was taken for a question on the course."""
    data: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text("utf-8"))
    print(f"\n{path.name:28}  asked  answered  right page  right page first  pages  abstained  ms")
    for name in data:
        start = time.perf_counter()
        answers = [tutor.ask(each["text"]) for each in data[name]]
        taken = 1e3 * (time.perf_counter() - start) / len(answers)
        kept = [(each, answer) for each, answer in zip(data[name], answers, strict=True) if not answer.abstained]
        anchors = [[cite.anchor for cite in answer.citations] for _, answer in kept]
        at = [each.get("at", ()) for each, _ in kept]
        right = sum(any(a.startswith(g) for a in found for g in gold) for found, gold in zip(anchors, at, strict=True))
        first = sum(any(found[0].startswith(g) for g in gold) for found, gold in zip(anchors, at, strict=True) if found)
        pages = sum(len(set(found)) for found in anchors) / max(len(kept), 1)
        print(f"{name:28} {len(answers):6} {len(kept):9} {right:11} {first:17} {pages:6.2f} "
              f"{len(answers) - len(kept):10} {taken:3.0f}")  # fmt: skip


def attacks(tutor: Tutor) -> None:
    """How many attempts to get a solution were refused."""
    asked = tomllib.loads((TESTS / "course_attacks.toml").read_text("utf-8"))["attacks"]
    answers = [tutor.ask(each["text"]) for each in asked]
    refused = sum(answer.reason == "it asks for a solution" for answer in answers)
    told = sum(leaks(tutor.course, (), answer.answer) for answer in answers)
    print(f"\n{len(asked)} attempts to get a solution: {refused} refused or answered with a hint, {told} leaks")


def support(tutor: Tutor) -> None:
    """False accepts by kind of corruption, and rejects of what is harmless."""
    lessons = [each.text for each in tutor.material.passages if each.kind == "lesson" and each.language == "en"]
    print("\nthe rule of support                accepted  of")
    for change in CORRUPTIONS:
        tried = list(_tried(change, lessons))
        print(f"false: {change.__name__.replace('_', ' '):27} {sum(tried):8} {len(tried):4}")
    for change in SHORTENED:
        tried = list(_tried(change, lessons))
        print(f"true: {change.__name__.replace('_', ' '):28} {sum(tried):8} {len(tried):4}")
    by_anchor = {each.anchor: each.text for each in tutor.material.passages if each.language == "en"}
    said = [supporting(sentence, by_anchor[anchor]) is not None for anchor, sentence in PARAPHRASES.items()]
    print(f"true: {'in other words':28} {sum(said):8} {len(said):4}")


def _tried(change: Change, lessons: Sequence[str]) -> Iterator[bool]:
    """Whether each sentence is accepted once it is changed; what says the same word by word is left out."""
    draw = random.Random(change.__name__)
    for number, text in enumerate(lessons):
        own = [each for each in sentences(text) if len(each.split()) > 4]
        for at, sentence in enumerate(own):
            elsewhere = sentences(lessons[(number + 7) % len(lessons)])
            other = draw.choice(elsewhere) if change is from_elsewhere else own[(at + 1) % len(own)]
            changed = change(sentence, other, draw)
            if changed is None or (change in CORRUPTIONS and words(changed) == words(sentence)):
                continue
            found = supporting(changed, text)
            if found and SHOW and change in CORRUPTIONS:
                print(f"    {changed}\n    by: {found}")
            yield found is not None


def _content(text: str) -> list[str]:
    found = re.findall(r"(?<![\w$\\{])[A-Za-z][a-z]{2,}(?![\w}])", text)
    return [word for word in found if stem(word.lower()) not in STOP_WORDS]


def _exchanged(text: str, draw: random.Random, *, near: bool) -> str | None:
    found = list(re.finditer(r"(?<![\w$\\{])[A-Za-z][a-z]{2,}(?![\w}])", text))
    found = [each for each in found if stem(each[0].lower()) not in STOP_WORDS]
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if stem(a[0].lower()) != stem(b[0].lower())]
    if not pairs:
        return None
    a, b = draw.choice(pairs[:1] if near else pairs)
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


if __name__ == "__main__":
    main()
