"""The small world that all chapters share: stories of a grammar whose probabilities are known exactly.

Every story is one derivation, every derivation another text, so the probability of a story is the product of the
choices that made it, and the entropy of the language is a sum that can be written down. A model of these stories has
a floor that it can be seen to approach, which no real text offers. Names and things come back within a story: to
predict them, a model has to look back, and the moment it learns to is visible.

    a story:  once upon a time there was a brave fox named mia . mia liked to dance in the barn . one day mia found
              a red ball near the house . mia gave the red ball to tom , a small bear . tom was happy . the end .
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

# What is chosen with which probability. A choice named after another one with a 2 differs from it (friend ≠ hero).
CHOICES: Mapping[str, Mapping[str, float]] = {
    "name": dict.fromkeys(("mia", "tom", "lily", "max", "anna", "ben", "zoe", "sam"), 1 / 8),
    "animal": {"cat": 0.3, "dog": 0.25, "fox": 0.15, "bear": 0.15, "mouse": 0.1, "owl": 0.05},
    "trait": {"little": 0.35, "brave": 0.25, "clever": 0.2, "shy": 0.2},
    "verb": {"run": 0.3, "dance": 0.25, "sing": 0.25, "sleep": 0.2},
    "place": dict.fromkeys(("forest", "garden", "house", "barn", "park", "meadow"), 1 / 6),
    "colour": {"red": 0.4, "blue": 0.3, "green": 0.2, "golden": 0.1},
    "thing": dict.fromkeys(("ball", "book", "key", "hat", "stone", "flower"), 1 / 6),
    "weather": {"sunny": 0.5, "cold": 0.3, "rainy": 0.2},
}
# Where the text itself branches: each branch with its probability. {x} is a choice; {x2} one that differs from {x}.
OPENING = "once upon a time there was a {trait} {animal} named {name} ."
BRANCHES: Sequence[Sequence[tuple[float, str]]] = (
    ((1.0, OPENING),),
    ((0.5, ""), (0.5, "it was a {weather} day .")),
    ((1.0, "{name} liked to {verb} in the {place} ."),),
    (
        (0.6, "one day {name} found a {colour} {thing} near the {place2} . "
              "{name} gave the {colour} {thing} to {name2} , a {trait2} {animal2} ."),
        (0.4, "one day {name} lost a {colour} {thing} near the {place2} . {name2} , a {trait2} {animal2} , helped "
              "{name} . they looked near the {place2} and found the {colour} {thing} ."),
    ),
    (
        (0.5, "{name2} was happy ."),
        (0.3, "{name} and {name2} were happy ."),
        (0.2, "{name} said thank you to {name2} ."),
    ),
    ((1.0, "the end ."),),
)  # fmt: skip
# Chosen independently of their first, although they may be equal: only names and places must differ.
DIFFER = ("name2", "place2")
QUESTIONS: Mapping[str, str] = {
    "who was {name} ?": "{animal}",
    "what did {name} like to do ?": "{verb}",
    "where did {name} {verb} ?": "{place}",
    "which colour was the {thing} ?": "{colour}",
    "what was near the {place2} ?": "{thing}",
    "who was {name2} ?": "{animal2}",
}
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = ("<|pad|>", "<|story|>", USER, ASSISTANT, END)


@dataclass(frozen=True)
class Story:
    """A story: its text, and the choices that made it."""

    text: str
    choices: Mapping[str, str]
    branches: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        """The text, word by word; full stops and commas are words."""
        return self.text.split()

    @property
    def log_probability(self) -> float:
        """ln of the probability of the story under the grammar."""
        total = sum(math.log(BRANCHES[place][branch][0]) for place, branch in enumerate(self.branches))
        return total + sum(math.log(_probability(name, value, self.choices)) for name, value in self.choices.items())


def stories(seed: int, count: int) -> Iterator[Story]:
    """`count` stories, always the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(count):
        yield _story(draw)


def vocabulary() -> list[str]:
    """Every word that a story, a question or an answer can have, in order of the alphabet."""
    texts = [text for place in BRANCHES for _, text in place] + list(QUESTIONS)
    found = {word for text in texts for word in text.split() if "{" not in word}
    return sorted(found.union(*CHOICES.values()))


def word_classes() -> dict[str, str]:
    """The hidden class of each word that is a choice: {'mia': 'name', 'cat': 'animal', …}."""
    return {word: name for name, words in CHOICES.items() for word in words}


def likeliest_story() -> Story:
    """A story that no other exceeds in probability (names and places are all equally likely)."""
    branches = product(*(range(len(place)) for place in BRANCHES))
    return max((_with_likeliest_choices(each) for each in branches), key=lambda story: story.log_probability)


def entropy_per_story() -> float:
    """The entropy of the stories in nats, from the grammar: E[−ln p], summed over the choices that a story makes."""
    total = sum(-p * math.log(p) for place in BRANCHES for p, _ in place)
    for name, expected in _expected_choices().items():
        total += expected * _choice_entropy(name)
    return total


def tokens_per_story() -> float:
    """The mean number of words of a story, from the grammar."""
    return sum(p * len(text.split()) for place in BRANCHES for p, text in place)


def entropy_per_token() -> float:
    """The floor of the mean loss per word, where a story's end is known."""
    return entropy_per_story() / tokens_per_story()


def is_fluent(text: str) -> bool:
    """Whether every sentence is a possible one, although names and things may not agree from one to the next."""
    words, at = text.split(), 0
    for place in BRANCHES:
        fits = [template.split() for _, template in place if _fit(template.split(), words[at:], None) is not None]
        if not fits:
            return False
        at += max(map(len, fits))
    return at == len(words)


def parse(text: str) -> Story | None:
    """The story with this text, or None if the grammar has none."""
    words, at = text.split(), 0
    choices: dict[str, str] = {}
    branches: list[int] = []
    for place in BRANCHES:
        fitting = ((i, _fit(template.split(), words[at:], choices)) for i, (_, template) in enumerate(place))
        # An empty branch fits everywhere: it counts only if no other does.
        found = [(index, fit) for index, fit in fitting if fit is not None]
        if not found:
            return None
        index, fit = max(found, key=lambda each: len(place[each[0]][1]))
        choices |= fit
        branches.append(index)
        at += len(place[index][1].split())
    return Story(text, choices, tuple(branches)) if at == len(words) else None


def questions(story: Story) -> list[tuple[str, str]]:
    """Every question about `story`, with its one-word answer."""
    return [(asked.format(**story.choices), answer.format(**story.choices)) for asked, answer in QUESTIONS.items()]


def conversation(story: Story, question: str, answer: str = "") -> str:
    """The story and a question as a model is asked, up to where it answers; with the answer if there is one."""
    asked = f"{USER} {story.text} {question} {ASSISTANT}"
    return f"{asked} {answer} . {END}" if answer else asked


def with_wrong_name(story: Story, draw: random.Random) -> str:
    """The story with one later name exchanged for one that does not occur in it: fluent, but it contradicts itself."""
    words = story.words
    first = {name: words.index(name) for name in (story.choices["name"], story.choices["name2"])}
    places = [i for i, word in enumerate(words) if word in first and i > first[word]]
    strangers = [name for name in CHOICES["name"] if name not in first]
    words[draw.choice(places)] = draw.choice(strangers)
    return " ".join(words)


def _story(draw: random.Random) -> Story:
    branches = tuple(draw.choices(range(len(place)), [p for p, _ in place])[0] for place in BRANCHES)
    return _made(branches, lambda options: draw.choices(list(options), list(options.values()))[0])


def _with_likeliest_choices(branches: tuple[int, ...]) -> Story:
    return _made(branches, lambda options: max(options, key=lambda word: options[word]))


def _made(branches: tuple[int, ...], choose: Callable[[Mapping[str, float]], str]) -> Story:
    """The story of these branches whose words are chosen, one after another, from what each may be."""
    template = " ".join(text for place, branch in zip(BRANCHES, branches, strict=True) if (text := place[branch][1]))
    choices: dict[str, str] = {}
    for name in _names(template):
        choices[name] = choose(_options(name, choices))
    return Story(template.format(**choices), choices, branches)


def _names(template: str) -> list[str]:
    """The choices of a template, in the order in which they are first made."""
    return list(dict.fromkeys(word.strip("{}") for word in template.split() if word.startswith("{")))


def _options(name: str, choices: Mapping[str, str]) -> dict[str, float]:
    """What `name` may be after `choices`, with probabilities."""
    options = dict(CHOICES[name.rstrip("2")])
    if name in DIFFER:
        options.pop(choices[name.rstrip("2")])
    total = sum(options.values())
    return {word: p / total for word, p in options.items()}


def _probability(name: str, value: str, choices: Mapping[str, str]) -> float:
    return _options(name, choices)[value]


def _expected_choices() -> dict[str, float]:
    """How often each choice is made in a story, on average: once if all branches make it."""
    expected: dict[str, float] = {}
    seen: set[str] = set()
    for place in BRANCHES:
        here: dict[str, float] = {}
        for p, text in place:
            for name in _names(text):
                here[name] = here.get(name, 0.0) + p
        for name, p in here.items():
            if name not in seen:
                expected[name] = p
        seen |= here.keys()
    return expected


def _choice_entropy(name: str) -> float:
    """The entropy of one choice; where it must differ from another, the mean over what that one was."""
    options = CHOICES[name.rstrip("2")]
    if name not in DIFFER:
        return -sum(p * math.log(p) for p in options.values())
    first = name.rstrip("2")
    rests = ((p, _options(name, {first: word})) for word, p in options.items())
    return sum(p * -sum(q * math.log(q) for q in rest.values()) for p, rest in rests)


def _fit(template: Sequence[str], words: Sequence[str], choices: Mapping[str, str] | None) -> dict[str, str] | None:
    """What the choices of `template` are if `words` begin with it, or None if they do not.

    They agree with `choices`, and with each other; without `choices` any word of the right class will do.
    """
    if len(words) < len(template):
        return None
    found: dict[str, str] = {}
    for expected, word in zip(template, words, strict=False):
        if not expected.startswith("{"):
            if expected != word:
                return None
            continue
        name = expected.strip("{}")
        if choices is None:
            possible = word in CHOICES[name.rstrip("2")]
        else:
            known = {**choices, **found}
            possible = known[name] == word if name in known else word in _options(name, known)
        if not possible:
            return None
        found[name] = word
    return found
