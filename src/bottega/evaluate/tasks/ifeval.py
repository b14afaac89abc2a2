"""IFEval: 25 kinds of instruction whose fulfilment a program can check.

Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv:2311.07911), and the
program published with it. Verdicts are that program's, but nothing is drawn at random:

- A document that lacks an argument is refused. The program draws one; lm-evaluation-harness does so also where the
  argument is 0, because it drops every value that is false.
- `letter_frequency` counts whatever one character it is given. The program counts a random letter instead of the "#"
  and "!" that some documents ask for.
- Languages are detected with a fixed seed, so that a response always has the same verdict. As in the program, text in
  which no language can be detected passes.
- A paragraph number beyond the number of paragraphs fails. The program draws another.

Keywords and the names of sections are regular expressions, as they are there. A word is a run of what Python's `re`
takes for letters and digits, as with the NLTK of the paper's time; NLTK 3.10.4 has another engine, in which the vowel
signs of Indian scripts do not divide words.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.tasks.sentences import split_sentences, split_words

# ------------------------------------------------------------------ keywords


def _compare(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("less than", "at least"):
        raise UserError(
            f"An instruction compares with {relation!r}.", hint="The relations are 'less than' and 'at least'."
        )
    return count < threshold if relation == "less than" else count >= threshold


def keywords_existence(response: str, *, keywords: Sequence[str]) -> bool:
    """Whether every keyword is found."""
    return all(re.search(keyword, response, re.IGNORECASE) for keyword in keywords)


def keyword_frequency(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """Whether the keyword is found less often than, or at least, `frequency` times."""
    return _compare(len(re.findall(keyword.strip(), response, re.IGNORECASE)), relation, frequency)


def forbidden_words(response: str, *, forbidden_words: Sequence[str]) -> bool:
    """Whether none of the words is found as a whole word."""
    return not any(re.search(rf"\b{word}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Whether the character, small or capital, is found less often than, or at least, `let_frequency` times."""
    return _compare(response.lower().count(letter.lower()), let_relation, let_frequency)


# ------------------------------------------------------------------ language and case


@functools.cache
def language_detector() -> Any:
    """The factory of language detectors, with all its profiles (half a second).

    Raises:
        UserError: langdetect is not installed.
    """
    try:
        from langdetect import detector_factory
    except ImportError:
        raise UserError(
            "IFEval checks the language of responses with langdetect, which is not installed.",
            hint="Install it with: pip install 'bottega[evaluate]'.",
        ) from None
    factory = detector_factory.DetectorFactory()
    factory.set_seed(0)
    factory.load_profile(detector_factory.PROFILES_DIRECTORY)
    return factory


def response_language(response: str, *, language: str) -> bool:
    """Whether the most probable language is `language` (ISO 639-1; "zh-cn" and "zh-tw"), or none can be detected."""
    detector = language_detector().create()
    from langdetect import LangDetectException

    detector.append(response)
    try:
        return detector.detect() == language
    except LangDetectException:
        return True


def english_capital(response: str) -> bool:
    """Whether there are only capital letters, and English."""
    return response.isupper() and response_language(response, language="en")


def english_lowercase(response: str) -> bool:
    """Whether there are only small letters, and English."""
    return response.islower() and response_language(response, language="en")


def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Whether the words in capitals are fewer than, or at least, `capital_frequency`."""
    return _compare(sum(word.isupper() for word in split_words(response)), capital_relation, capital_frequency)


# ------------------------------------------------------------------ length


def number_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    """Whether the sentences are fewer than, or at least, `num_sentences`."""
    return _compare(len(split_sentences(response)), relation, num_sentences)


def number_words(response: str, *, num_words: int, relation: str) -> bool:
    """Whether the runs of letters and digits are fewer than, or at least, `num_words`."""
    return _compare(len(re.findall(r"\w+", response)), relation, num_words)


def number_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """Whether `***` divides the response into so many paragraphs, of which none is empty."""
    first, *between, last = re.split(r"\s?\*\*\*\s?", response) if "***" in response else (response, "")
    ends = bool(first.strip()) + bool(last.strip())
    return all(map(str.strip, between)) and ends + len(between) == num_paragraphs


def nth_paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether blank lines divide the response into so many paragraphs, of which the n-th (from 1) begins so.

    Empty paragraphs do not count towards the number, but are paragraphs when the n-th is looked for, as in the program.
    """
    paragraphs = response.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if not 1 <= nth_paragraph <= filled or not paragraphs[nth_paragraph - 1].strip():
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return filled == num_paragraphs and re.split("[.,?!'\"]", word)[0].lower() == first_word.lower()


# ------------------------------------------------------------------ content and form


def number_placeholders(response: str, *, num_placeholders: int) -> bool:
    """Whether there are at least so many `[placeholders]`."""
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def postscript(response: str, *, postscript_marker: str) -> bool:
    """Whether the marker of a postscript is found, anywhere and in small or capital letters."""
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(known.get(marker, marker.lower()), response.lower()))


def number_bullet_lists(response: str, *, num_bullets: int) -> bool:
    """Whether exactly so many lines begin with `*` (but not `**`) or `-`."""
    stars = re.findall(r"^\s*\*[^*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(response: str) -> bool:
    """Whether one of the three answers is found."""
    return any(f"My answer is {answer}." in response for answer in ("yes", "no", "maybe"))


def number_highlighted_sections(response: str, *, num_highlights: int) -> bool:
    """Whether there are at least so many `*highlights*`; between double asterisks one counts for each reading."""
    singles = re.findall(r"\*([^\n*]*)\*", response)
    doubles = re.findall(r"\*\*([^\n*]*)\*\*", response)
    return sum(bool(text.strip()) for text in singles + doubles) >= num_highlights


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    """Whether at least so many sections are numbered, such as "Section 1"."""
    return sum(1 for _ in re.finditer(rf"{section_spliter.strip()}\s?\d+", response)) >= num_sections


def json_format(response: str) -> bool:
    """Whether the response is JSON, inside a fence or not."""
    text = re.sub(r"\A```(json|Json|JSON)?|```\Z", "", response.strip()).strip()
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """Whether there is a `<<title>>`."""
    return any(text.lstrip("<").rstrip(">").strip() for text in re.findall(r"<<[^\n]+>>", response))


# ------------------------------------------------------------------ combination, begin and end


def two_responses(response: str) -> bool:
    """Whether `******` divides two responses that differ."""
    responses = [text.strip() for text in response.split("******")]
    filled = [text for text in responses if text]
    return all(responses[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    """Whether the response begins with the request."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, *, end_phrase: str) -> bool:
    """Whether the response ends with the phrase, a quotation mark aside."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """Whether the response stands between double quotation marks."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def no_comma(response: str) -> bool:
    """Whether there is no comma."""
    return "," not in response


INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": keywords_existence,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}

# ------------------------------------------------------------------ verdicts


def follows(response: str, instruction_id: str, arguments: dict[str, Any]) -> bool:
    """Whether a response that is not blank follows one instruction; arguments that are None are absent.

    Raises:
        UserError: the instruction is unknown, its arguments are not its own, or a keyword is no regular expression.
    """
    check = INSTRUCTIONS.get(instruction_id)
    if check is None:
        raise UserError(
            f"IFEval has no instruction {instruction_id!r}.", hint=did_you_mean(instruction_id, INSTRUCTIONS)
        )
    given = {name: value for name, value in arguments.items() if value is not None}
    needed = list(inspect.signature(check).parameters)[1:]
    if set(given) != set(needed):
        raise UserError(
            f"The instruction {instruction_id} has the arguments {sorted(given)}.",
            hint=f"It takes {', '.join(needed) or 'none'}: correct `kwargs` in the document.",
        )
    try:
        return bool(response.strip()) and check(response, **given)
    except re.error as error:
        raise UserError(
            f"An argument of {instruction_id} is not a regular expression: {error}.",
            hint=f"Correct {given} in the document: a sign such as + is written \\+.",
        ) from error


def loose_variants(response: str) -> list[str]:
    """The response, and without its first, its last or both lines; each also without asterisks (paper, section 2.2)."""
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [text.replace("*", "") if plain else text for text in cut for plain in (False, True)]


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, bool | list[bool]]:
    """Strict and loose verdicts on `results[0]`: on the whole prompt, and on each of its instructions in order."""
    instructions = list(zip(doc["instruction_id_list"], doc["kwargs"], strict=True))
    strict = [follows(results[0], *instruction) for instruction in instructions]
    variants = loose_variants(results[0])
    loose = [
        followed or any(follows(variant, *instruction) for variant in variants)
        for followed, instruction in zip(strict, instructions, strict=True)
    ]
    return {
        "prompt_level_strict_acc": all(strict),
        "inst_level_strict_acc": strict,
        "prompt_level_loose_acc": all(loose),
        "inst_level_loose_acc": loose,
    }
