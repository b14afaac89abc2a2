"""IFEval's checkers against lm-evaluation-harness's own classes, and where those draw at random, by hand.

Those classes split sentences with NLTK's Punkt and its downloaded model. Here Punkt itself runs with our two lists of
words as its model; `benchmarks/ifeval_verdicts.py` compares with the downloaded one.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import langdetect
import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import punkt

from bottega.core.errors import UserError
from bottega.evaluate.tasks import ifeval
from bottega.evaluate.tasks.functions import agg_inst_level_acc, known_function
from bottega.evaluate.tasks.ifeval import INSTRUCTIONS, follows, loose_variants, process_results
from bottega.evaluate.tasks.sentences import ABBREVIATIONS, STARTERS, split_sentences, split_words

SENTENCES = (
    "The quick brown fox met Dr. Smith of the U.S. Army at 10 a.m. on Monday.",
    "I CAN'T believe it's over, she said!",
    'He asked: "Is NASA\'s plan ready?"',
    "My answer is yes.",
    "Any other questions?",
    "Wait... is this A GOOD idea?!",
    "Write a poem about rivers, with a title.",
    "El perro come en la casa de mi madre todos los días.",
    "Le chat dort dans le jardin pendant que la pluie tombe.",
    "Please fill in [name], [street] and [city].",
    "***",
    "******",
    "* a *starred* point with **two** stars",
    "- a dash, and **bold text**",
    "<<A title>>",
    "<< >>",
    "Section 1",
    "SECTION 2",
    "P.S. Do not forget the keys.",
    "P. P. S. Nor the dog",
    "1. First, open the river gate.",
    "2. then close it",
    '{"a": [1, 2], "b": null}',
    "The river rises (J. Smith says so). The river falls.",
    "#river #water",
    "12345",
    "",
    "",
)
SEPARATORS = ("\n", "\n\n", " ", "\n\n", "\n***\n", "\n******\n")
RELATIONS = ("less than", "at least")
KEYWORDS = ("river", "the", "yes", "dog", "gate", "casa", "r.v")


def punkt_with_our_words() -> punkt.PunktSentenceTokenizer:
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    for word in STARTERS:  # seen small within a sentence, never with a capital
        parameters.ortho_context[word] = punkt._ORTHO_MID_LC
    tokenizer = punkt.PunktSentenceTokenizer()
    tokenizer._params = parameters
    return tokenizer


@pytest.fixture(scope="module")
def theirs() -> Iterator[ModuleType]:
    """lm-evaluation-harness's functions, without its download and with one seed of its language detector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk, "download", lambda *_: True)
        patch.setattr(nltk.tokenize, "_get_punkt_tokenizer", lambda *_: punkt_with_our_words())
        patch.setattr(langdetect.DetectorFactory, "seed", 0)
        module = importlib.import_module("lm_eval.tasks.ifeval.utils")
        texts = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
        patch.setattr(texts, "_get_sentence_tokenizer", punkt_with_our_words)
        yield module


def response(draw: random.Random) -> str:
    """A text of a few of the sentences above, sometimes in one case, quoted, fenced or said twice."""
    text = draw.choice(SENTENCES)
    for _ in range(draw.choice((0, 1, 2, 4, 8))):
        text += draw.choice(SEPARATORS) + draw.choice(SENTENCES)
    fence = draw.choice(("```", "```json", "```JSON"))
    forms = (str, str, str, str.upper, str.lower, lambda text: f'"{text}"', lambda text: f"{fence}\n{text}\n```")
    return draw.choice(("", " ", "\n")) + draw.choice(forms)(text)


def arguments(instruction: str, draw: random.Random) -> dict[str, Any]:
    """Arguments that some of the responses satisfy; none is 0, which lm-evaluation-harness would not see."""
    few, relation = draw.randint(1, 5), draw.choice(RELATIONS)
    named = {
        "keywords:existence": {"keywords": draw.sample(KEYWORDS, 2)},
        "keywords:frequency": {"keyword": draw.choice(KEYWORDS), "frequency": few, "relation": relation},
        "keywords:forbidden_words": {"forbidden_words": draw.sample(KEYWORDS, 2)},
        "keywords:letter_frequency": {
            "letter": draw.choice("aeT"),
            "let_frequency": draw.randint(1, 20),
            "let_relation": relation,
        },
        "language:response_language": {"language": draw.choice(("en", "es", "fr"))},
        "length_constraints:number_sentences": {"num_sentences": draw.randint(1, 12), "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": draw.randint(1, 3)},
        "length_constraints:number_words": {"num_words": draw.randint(1, 60), "relation": relation},
        "length_constraints:nth_paragraph_first_word": {
            "num_paragraphs": (paragraphs := draw.choice((1, 1, 2))),
            "nth_paragraph": draw.randint(1, paragraphs),
            "first_word": draw.choice(("The", "i", "any", "write")),
        },
        "detectable_content:number_placeholders": {"num_placeholders": draw.randint(1, 4)},
        "detectable_content:postscript": {"postscript_marker": draw.choice(("P.S.", "P.P.S", "Any"))},
        "detectable_format:number_bullet_lists": {"num_bullets": draw.randint(1, 3)},
        "detectable_format:number_highlighted_sections": {"num_highlights": draw.randint(1, 3)},
        "detectable_format:multiple_sections": {
            "section_spliter": draw.choice(("Section", "SECTION ")),
            "num_sections": draw.randint(1, 2),
        },
        "combination:repeat_prompt": {"prompt_to_repeat": draw.choice(SENTENCES[:7])},
        "startend:end_checker": {"end_phrase": draw.choice((" over, she said!", "any other questions?", "]."))},
        "change_case:capital_word_frequency": {"capital_frequency": draw.randint(1, 6), "capital_relation": relation},
    }
    return named.get(instruction, {})


def test_there_are_the_25_instructions_of_the_paper(theirs: ModuleType) -> None:
    assert set(INSTRUCTIONS) == set(theirs.instructions_registry.INSTRUCTION_DICT)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_each_checker_agrees(instruction: str, theirs: ModuleType) -> None:
    draw = random.Random(instruction)
    seen = {True: 0, False: 0}
    for _ in range(300):
        text, given = response(draw), arguments(instruction, draw)
        if not text.strip():
            continue
        checker = theirs.instructions_registry.INSTRUCTION_DICT[instruction](instruction)
        checker.build_description(**given)
        verdict = follows(text, instruction, given)
        assert verdict == checker.check_following(text), (text, given)
        seen[verdict] += 1
    assert min(seen.values()) >= 5, seen


def test_verdicts_on_whole_documents_agree(theirs: ModuleType) -> None:
    draw = random.Random(5)
    outcomes = set()
    for key in range(250):
        names = draw.sample(list(INSTRUCTIONS), draw.randint(1, 3))
        kwargs = [{"absent": None, **arguments(name, draw)} for name in names]
        doc = {"key": key, "prompt": "", "instruction_id_list": names, "kwargs": kwargs}
        text = response(draw)
        ours = process_results(doc, [text])
        assert ours == theirs.process_results(doc, [text]), (doc, text)
        outcomes.add((ours["prompt_level_strict_acc"], ours["prompt_level_loose_acc"]))
    assert outcomes == {(False, False), (False, True), (True, True)}


# ------------------------------------------------------------------ sentences and words

WORDS = (
    "Dr. U.S. Inc. e.g. J. c. I. 3. 12.5. No. no! what?! ?! ... well... The river but But (yes.) end.) [a.] a.* *b* "
    "CAN'T it's. NASA's I'M, \"Go.\" 'so' don’t “Ha!” cannot GONNA A,B 1,000. x:y — a--b http://a.b/c?d=e \""
)
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS.split()), st.sampled_from((" ", " ", " ", "\n", "\n\n", "  ")))).map(
    lambda pairs: "".join(map("".join, pairs))
)


@settings(deadline=None, max_examples=600)
@given(TEXTS)
def test_sentences_are_punkts(text: str) -> None:
    expected = [sentence.strip() for sentence in punkt_with_our_words().tokenize(text)]
    assert split_sentences(text) == [sentence for sentence in expected if sentence]


@settings(deadline=None, max_examples=600)
@given(TEXTS)
def test_capital_words_are_the_treebanks(text: str) -> None:
    treebank = nltk.NLTKWordTokenizer()
    expected = [word for sentence in split_sentences(text) for word in treebank.tokenize(sentence)]
    assert sum(map(str.isupper, split_words(text))) == sum(map(str.isupper, expected))


def test_sentences_of_ordinary_text() -> None:
    text = 'Mr. Jones paid $3.50 to J. Smith Inc. in May. "Why?" she asked. At 5 p.m. now... But wait! (See 3.) Yes'
    assert split_sentences(text) == [
        "Mr. Jones paid $3.50 to J. Smith Inc. in May.",
        '"Why?"',
        "she asked.",
        "At 5 p.m. now...",
        "But wait!",
        "(See 3.)",
        "Yes",
    ]
    assert split_words("I can't; WE'RE in the U.S. now.") == [
        "I",
        "ca",
        "n't",
        ";",
        "WE",
        "'RE",
        "in",
        "the",
        "U.S.",
        "now",
        ".",
    ]
    assert split_sentences(" \n") == split_words("") == []


# ------------------------------------------------------------------ by hand


def test_what_is_false_is_an_argument_too(theirs: ModuleType) -> None:
    # lm-evaluation-harness drops a 0 and draws another number instead.
    assert follows("any words", "length_constraints:number_words", {"relation": "at least", "num_words": 0})
    assert not follows("x", "keywords:frequency", {"keyword": "dog", "relation": "less than", "frequency": 0})
    checker = theirs.instructions_registry.INSTRUCTION_DICT["keywords:frequency"]("")
    checker.build_description(keyword="dog", relation="less than", frequency=0)  # the paper's program passes it on
    assert not checker.check_following("x")


def test_words_are_those_of_the_papers_program() -> None:
    # NLTK of late takes vowel signs for letters, and finds two words.
    given = {"relation": "at least", "num_words": 4}
    assert follows("हिन्दी भाषा", "length_constraints:number_words", given)


def test_signs_are_counted_as_the_prompt_asks() -> None:
    given = {"letter": "#", "let_relation": "at least", "let_frequency": 4}
    assert follows("#a #b #c #d", "keywords:letter_frequency", given)
    assert not follows("#a #b #c hashtag", "keywords:letter_frequency", given)


@pytest.mark.parametrize(
    ("instruction", "given", "yes", "no"),
    [
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***a\n***\nb***", "a *** *** b"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "a", "a***b"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
            "one\n\n'then, two",
            "one\n\n\n\nthen",
        ),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b\n**bold**", "* a\n---\n* b"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "an *a* b", "an ** b * *"),
        ("detectable_format:json_format", {}, '```Json\n{"a": 1}\n```', '{"a": 1} and more'),
        ("detectable_format:json_format", {}, "[1]", "[" * 100_000),
        ("detectable_format:title", {}, "text <<t>>", "text <<>>>"),
        ("combination:two_responses", {}, "******a******b", "a******a "),
        ("combination:two_responses", {}, "a******b", "a************b"),
        ("startend:quotation", {}, ' "quoted"\n', '"'),
        ("startend:end_checker", {"end_phrase": "The end. "}, '"… THE END."', "The end. "),
        ("change_case:english_capital", {}, "THIS IS A SENTENCE IN ENGLISH", "ESTO ES UNA FRASE EN CASTELLANO"),
        ("language:response_language", {"language": "kn"}, "ಇದು ಕನ್ನಡ ಭಾಷೆಯ ವಾಕ್ಯ", "This is an English sentence"),
        ("language:response_language", {"language": "fr"}, "12345", "This is an English sentence"),
    ],
)
def test_edges(instruction: str, given: dict[str, Any], yes: str, no: str) -> None:
    assert follows(yes, instruction, given)
    if instruction == "startend:end_checker":  # the phrase is stripped, and so is the response
        assert follows(no, instruction, given)
    else:
        assert not follows(no, instruction, given)


def test_a_paragraph_beyond_the_number_fails() -> None:
    given = {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}
    assert not follows("a", "length_constraints:nth_paragraph_first_word", given)
    assert not follows("a", "length_constraints:nth_paragraph_first_word", given | {"nth_paragraph": 0})


def test_blank_responses_follow_nothing() -> None:
    doc = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert not follows(" \n", "punctuation:no_comma", {})
    assert process_results(doc, [""])["inst_level_loose_acc"] == [False]


def test_loose_variants_drop_lines_and_asterisks() -> None:
    variants = ["a*\nb\n*c", "a\nb\nc", "b\n*c", "b\nc", "a*\nb", "a\nb", "b", "b"]
    assert loose_variants("a*\nb\n*c") == variants


@pytest.mark.parametrize(
    ("instruction", "given", "message"),
    [
        ("punctuation:no_commas", {}, "punctuation:no_comma"),
        ("length_constraints:number_words", {"num_words": 3, "relation": None}, "num_words, relation"),
        ("punctuation:no_comma", {"num_words": 3}, "takes none"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "less than"),
        ("keywords:existence", {"keywords": ["c("]}, "regular expression"),
    ],
)
def test_documents_that_leave_something_open_are_refused(instruction: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        follows("text", instruction, given)
    assert message in str(error.value)


def test_without_a_language_detector_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    ifeval.language_detector.cache_clear()
    with pytest.raises(UserError, match=r"bottega\[evaluate\]"):
        follows("text", "language:response_language", {"language": "en"})
    assert not follows("Text", "change_case:english_capital", {})  # decided before the language is asked for


def test_the_same_response_has_the_same_verdict() -> None:
    # Short text of which language detection without a seed says now one language, now another.
    verdicts = {follows("no me", "language:response_language", {"language": "es"}) for _ in range(20)}
    assert len(verdicts) == 1


def test_the_task_file_finds_these_functions() -> None:
    process = known_function("ifeval", "google/IFEval", "utils.process_results")
    assert process is not None
    doc = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": json.loads("[{}, {}]")}
    verdicts = process(doc, ['Yes\n"no"'])
    assert verdicts["inst_level_strict_acc"] == [True, False]
    assert verdicts["inst_level_loose_acc"] == [True, True]
    assert (verdicts["prompt_level_strict_acc"], verdicts["prompt_level_loose_acc"]) == (False, True)
    assert agg_inst_level_acc([verdicts["inst_level_strict_acc"]]) == 0.5
