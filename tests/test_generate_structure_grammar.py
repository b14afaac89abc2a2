"""Constraints as the engine uses them, the reference automaton beside llguidance, token healing, hostile grammars."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottega.core.errors import BottegaError, UserError
from bottega.generate.constraint import MaskFiller, mask_words, unpack
from bottega.generate.structure.automaton import compile_regex, utf8_ranges
from bottega.generate.structure.config import Structured, constraint_of
from bottega.generate.structure.grammar import choice, lark, regex
from bottega.generate.structure.healing import heal
from bottega.generate.structure.schema import json_object
from bottega.generate.structure.trie import AutomatonConstraint, TokenTrie
from bottega.generate.structure.vocabulary import packed, vocabulary_of
from bottega.tokenizer.tokenizer import Tokenizer
from structure_walks import STOPS, allowed_tokens, follow, takes, tiny
from test_tokenizer_codec import sentencepiece_like


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny(tmp_path_factory.mktemp("tiny"), 3, special=("<|other|>",))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text)


def test_masks_tell_exactly_the_tokens_that_can_go_on(tokenizer: Tokenizer) -> None:
    """Against brute force: a token is allowed if its bytes, appended, still begin some match."""
    constraint = regex(tokenizer, 'a*"b"|"name": [0-9]')
    texts = [*(f'"name": {digit}' for digit in range(10)), *("a" * n + '"b"' for n in range(12))]
    beginnings = {text.encode()[:size] for text in texts for size in range(len(text.encode()) + 1)}
    for done in ("", "a", "aa", '"', '"b', '"name": ', '"name": 7'):
        here = constraint.copy()
        assert follow(here, tokenizer, done) == done
        possible = {
            id_
            for id_ in set(range(tokenizer.vocab_size)) - tokenizer.special_ids
            if done.encode() + tokenizer.token_bytes(id_) in beginnings
        }
        stops = set(tokenizer.stop_ids) if re.fullmatch(r'a*"b"|"name": 7', done) else set()
        found = set(allowed_tokens(here, tokenizer.vocab_size))
        assert found <= possible | stops and stops <= found and found
        if not here.forced():  # where the text is forced, only its usual first token is allowed
            assert found == possible | stops


def test_what_the_tokenizer_cannot_write_is_named(tmp_path: Path) -> None:
    """A vocabulary without braces, whose unknown token is no text: JSON ends as invalid, by name."""
    tokens = {token: id_ for id_, token in enumerate(["<unk>", "<s>", "</s>", *'▁abc":'])}
    data = json.loads((sentencepiece_like(tmp_path) / "tokenizer.json").read_text())
    data["model"] |= {"vocab": tokens, "merges": [], "byte_fallback": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    narrow = Tokenizer.load(tmp_path)
    assert set('{}"a') & set(vocabulary_of(narrow).unwritable) == set("{}")
    constraint = json_object(narrow)
    while not constraint.is_finished:
        constraint.accept(allowed_tokens(constraint, narrow.vocab_size)[0])
    assert "cannot write" in constraint.judge("").error


def test_special_tokens_are_never_text_and_either_stop_token_ends(tokenizer: Tokenizer) -> None:
    constraint = regex(tokenizer, "(?s:.*)")
    found = set(allowed_tokens(constraint, tokenizer.vocab_size))
    assert found & tokenizer.special_ids == tokenizer.stop_ids and len(tokenizer.stop_ids) == len(STOPS)
    assert tokenizer.id_of("<|other|>") not in found
    for stop in tokenizer.stop_ids:
        ended = constraint.copy()
        ended.accept(stop)
        assert ended.is_finished and ended.is_accepting
        assert set(allowed_tokens(ended, tokenizer.vocab_size)) == tokenizer.stop_ids


def test_tokens_are_taken_back_copied_and_tried(tokenizer: Tokenizer) -> None:
    constraint = lark(tokenizer, 'start: "x" /[0-9]+/ "y"')
    ids = ids_of(tokenizer, "x12y")
    assert constraint.allowed([*ids, ids[0]]) == len(ids) and not constraint.is_accepting
    masks = []
    for id_ in ids:
        masks.append(allowed_tokens(constraint, tokenizer.vocab_size))
        constraint.accept(id_)
    assert constraint.is_finished and constraint.is_accepting and constraint.judge("x12y").valid
    other = constraint.copy()
    other.accept(min(tokenizer.stop_ids))
    other.rollback(3)
    assert allowed_tokens(other, tokenizer.vocab_size) == masks[2] and constraint.is_finished
    with pytest.raises(BottegaError, match="does not follow"):
        other.accept(ids[0])


def test_a_stop_token_is_taken_back_wherever_it_came(tokenizer: Tokenizer) -> None:
    letter, stop = tokenizer.encode("a")[0], min(tokenizer.stop_ids)
    for pattern in ("a{2,3}", "a+", "aa"):  # the end may, and must, come after two
        constraint = regex(tokenizer, pattern)
        first = allowed_tokens(constraint, tokenizer.vocab_size)
        for token in (letter, letter, stop):
            constraint.accept(token)
        assert constraint.is_finished
        constraint.rollback(1)
        assert constraint.is_accepting and stop in allowed_tokens(constraint, tokenizer.vocab_size)
        constraint.accept(stop)
        constraint.rollback(3)
        assert not constraint.is_accepting and allowed_tokens(constraint, tokenizer.vocab_size) == first


def test_forced_tokens_are_the_tokenizers_own(tokenizer: Tokenizer) -> None:
    constraint = choice(tokenizer, ["red wine", "red beer"])
    forced = constraint.forced()
    assert forced and "red ".startswith(tokenizer.decode(forced)) and forced == ids_of(tokenizer, "red ")[: len(forced)]
    assert constraint.allowed(forced) == len(forced)


def test_a_grammar_that_leads_nowhere_ends_with_an_error_and_stop_tokens(tokenizer: Tokenizer) -> None:
    constraint = lark(tokenizer, 'start: "ab" x | "ac"\nx: x "y"')
    follow(constraint, tokenizer, "a")
    constraint.accept(tokenizer.encode("b")[0])
    assert set(allowed_tokens(constraint, tokenizer.vocab_size)) == tokenizer.stop_ids
    assert constraint.error and constraint.is_finished and not constraint.is_accepting
    constraint.accept(min(tokenizer.stop_ids))
    assert not constraint.judge("ab").valid and constraint.judge("ab").error == constraint.error


def test_masks_of_a_batch_are_filled_on_a_thread(tokenizer: Tokenizer) -> None:
    constraints = [regex(tokenizer, "a+"), None, json_object(tokenizer)]
    filler = MaskFiller(tokenizer.vocab_size + 100)
    masks = filler.start(constraints).result()
    filler.close()
    assert masks[1] is None
    for constraint, mask in zip(constraints, masks, strict=True):
        if constraint is not None and mask is not None:
            assert mask.shape == (mask_words(tokenizer.vocab_size + 100),)
            expected = allowed_tokens(constraint, tokenizer.vocab_size)
            assert unpack(mask, tokenizer.vocab_size + 100).nonzero().flatten().tolist() == expected


@given(ids=st.sets(st.integers(0, 99), max_size=40))
def test_packing_is_undone_by_unpacking(ids: set[int]) -> None:
    mask = packed(ids, mask_words(100))
    assert mask.dtype == torch.int32
    assert set(unpack(mask, 100).nonzero().flatten().tolist()) == ids


def test_a_tokenizer_is_prepared_once_and_let_go(tmp_path: Path) -> None:
    import gc
    import weakref

    loaded = tiny(tmp_path, 5)
    assert vocabulary_of(loaded) is vocabulary_of(loaded)
    regex(loaded, "a+").forced()
    gone = weakref.ref(loaded)
    del loaded
    gc.collect()
    assert gone() is None


def test_a_sentencepiece_answer_may_begin_with_the_space_that_decoding_takes_away(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(sentencepiece_like(tmp_path))
    constraint = json_object(tokenizer)
    space, brace = tokenizer.id_of("▁"), tokenizer.id_of("<0x7B>")
    assert space is not None and brace is not None
    assert {space, brace} <= set(allowed_tokens(constraint, tokenizer.vocab_size))
    constraint.accept(space)
    assert takes(constraint, tokenizer, '{"hello":"é"}') and space not in allowed_tokens(
        constraint, tokenizer.vocab_size
    )


def test_a_tokenizer_without_bytes_or_without_an_end_is_refused(tmp_path: Path) -> None:
    sentencepiece_like(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="needs a stop token"):
        regex(Tokenizer.load(tmp_path), "a")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokens are bytes"):
        regex(Tokenizer.load(tmp_path), "a")


@pytest.mark.parametrize(
    ("texts", "good", "bad"),
    [
        (["yes", "no", "yes, please"], ["yes", "no", "yes, please"], ["", "ye", "yes,", "maybe"]),
        (['a"b', "a\\b", "a\nb", "日", "/x/"], ['a"b', "a\\b", "a\nb", "日", "/x/"], ["ab", "a\\\\b"]),
        (["", "x"], ["", "x"], ["xx"]),
        ([str(number) for number in range(5000)], ["0", "4999", "12"], ["5000", "x"]),
    ],
    ids=["words", "odd characters", "nothing", "many"],
)
def test_choices(texts: list[str], good: list[str], bad: list[str], tokenizer: Tokenizer) -> None:
    constraint = choice(tokenizer, texts)
    assert all(takes(constraint, tokenizer, text) for text in good)
    assert not any(takes(constraint, tokenizer, text) for text in bad)


def test_grammars_in_both_notations(tokenizer: Tokenizer) -> None:
    for text in ('start: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]+/', 'root ::= n ("+" n)*\nn ::= [0-9]+'):
        constraint = lark(tokenizer, text)
        assert takes(constraint, tokenizer, "1+22+3")
        assert not takes(constraint, tokenizer, "1+") and not takes(constraint, tokenizer, "+1")


@pytest.mark.parametrize("bad", ["(", "[", r"\bx", r"(a)\1", "(?<=a)b", "a{99999999999}", "x" * 70_000, "\ud800"])
def test_a_bad_regex_is_the_users_error(bad: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"^guided_regex"):
        regex(tokenizer, bad, field="guided_regex")


@pytest.mark.parametrize(
    "bad",
    [
        'start: "a" b', "start: start", "", "start: @x", "root ::= [", "root ::= b", "x" * 70_000,
        'start: %json {"type": "array", "uniqueItems": true}', "root ::= " + "(" * 30_000,
    ],
    ids=range(9),
)  # fmt: skip
def test_a_bad_grammar_is_the_users_error(bad: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"^guided_grammar"):
        lark(tokenizer, bad, field="guided_grammar")


HOSTILE = {
    "references": "S({'$defs': {f'a{i}': {'items': {'$ref': f'#/$defs/a{i+1}'}} for i in range(4000)} | {'a4000': {}},"
    " '$ref': '#/$defs/a0'})",
    "doubling": "S({'$defs': {f'a{i}': {'items': {'allOf': [{'$ref': f'#/$defs/a{i+1}'}] * 2}} for i in range(30)} |"
    " {'a30': {}}, '$ref': '#/$defs/a0'})",
    "depth": "S('{\"items\":' * 30000 + '{}' + '}' * 30000)",
    "properties": "S({'properties': {f'p{i}': {} for i in range(10000)}})",
    "patterns": "S({'allOf': [{'properties': {'p': {'pattern': f'a.{{{i}}}b'}}} for i in range(40)]})",
    "pattern properties": "S({'patternProperties': {f'^a{i}b*$': {} for i in range(400)}})",
    "rules": "L('\\n'.join(['start: r0'] + [f'r{i}: r{i+1}' for i in range(4000)] + ['r4000: \"a\"']))",
    "embedded": "L('start: %json ' + json.dumps({'$defs': {f'a{i}': {'items': {'$ref': f'#/$defs/a{i+1}'}}"
    " for i in range(1500)} | {'a1500': {}}, '$ref': '#/$defs/a0'}))",
    "intersections": "L('start: A\\nA: ' + ' & '.join(f'/(.|\\\\n)*a.{{{i}}}b(.|\\\\n)*/' for i in range(40)))",
    "doubled terminals": "L('\\n'.join(['start: R0'] + [f'R{i}: R{i+1} R{i+1}' for i in range(60)] + ['R60: \"a\"']))",
    "dots": "R('.*' * 2000)",
    "alternatives": "R('|'.join(map(str, range(12000))))",
    "counts": "R('((a{0,1000}b?){0,1000}c?){0,1000}')",
}


def test_hostile_grammars_end_neither_the_process_nor_the_patience(tmp_path: Path) -> None:
    """In a process of its own, on a thread (whose stack is the smaller one): each refused or compiled, in seconds."""
    code = f"""
import json, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from structure_walks import allowed_tokens, tiny
from bottega.core.errors import UserError
from bottega.generate.structure import grammar, schema
T = tiny(Path({str(tmp_path)!r}), 1)
S, R, L = (lambda given, make=make: make(T, given) for make in (schema.json_schema, grammar.regex, grammar.lark))
def attack():
    for name, code in json.loads(sys.stdin.read()).items():
        print(name, end=": ", flush=True)
        start = time.monotonic()
        try:
            constraint = eval(code)
            assert allowed_tokens(constraint, T.vocab_size)
            print("compiled", end=" ")
        except UserError as error:
            print("refused", end=" ")
        print(time.monotonic() - start < 10, flush=True)
thread = threading.Thread(target=attack)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(HOSTILE), capture_output=True, text=True, timeout=100
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(HOSTILE), (lines, done.stderr[-500:])
    assert all(re.fullmatch(r"[a-z ]+: (compiled|refused) True", line) for line in lines), lines


# ---------------------------------------------------------------------- the reference automaton

PATTERNS = [
    "ab+c?", "[0-9]{2,4}-x", "(true|false|null)*", '[^"]*', "é.日?", "(a|b)*abb", "", "[^a]{3}", "[à-ü]+🎉", "x{0,2}",
    '\\{"name": ?"[^"\\\\]*"\\}', "(ab){2,}|c{0,3}", "[a-z_-]+@[a-z.]+", "\\.\\n\\t?", "(?:a|)b", "[]a]|[a-]", ".*",
]  # fmt: skip
EQUAL_IN_OURS = {"[]a]|[a-]": "[\\]a]|[a\\-]"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_automatons_masks_are_llguidances(pattern: str, tokenizer: Tokenizer) -> None:
    ours = AutomatonConstraint(TokenTrie(vocabulary_of(tokenizer)), compile_regex(EQUAL_IN_OURS.get(pattern, pattern)))
    # Without forcing: else a mask keeps only the usual first token of a text that is certain.
    escaped = pattern.replace("/", "\\/")
    theirs = lark(tokenizer, f'%llguidance {{"no_forcing": true}}\nstart: /{escaped}/')
    for seed in range(4):
        draw, left, right = random.Random(seed), ours.copy(), theirs.copy()
        for _ in range(25):
            tokens = allowed_tokens(left, tokenizer.vocab_size)
            assert tokens == allowed_tokens(right, tokenizer.vocab_size)
            assert left.is_accepting == right.is_accepting
            others = [token for token in tokens if token not in tokenizer.stop_ids]
            if not others:
                break
            token = draw.choice(others)
            assert left.allowed([token]) == 1
            left.accept(token)
            right.accept(token)


@settings(max_examples=60, deadline=None)
@given(
    pattern=st.recursive(
        st.sampled_from(["a", "b", "[a-c]", "[^a]", ".", "é", "\\d"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(lambda t: f"({t[0]}){t[1]}"),
        ),
        max_leaves=5,
    ),
    text=st.text("abcé1\n", max_size=6),
)
def test_the_automaton_agrees_with_pythons_regular_expressions(pattern: str, text: str) -> None:
    automaton = compile_regex(pattern)
    state: int | None = 0
    for byte in text.encode():
        state = None if state is None else automaton.edges[state].get(byte)
    assert (state in automaton.accepting) == bool(re.fullmatch(pattern, text, re.ASCII))


@given(low=st.integers(0, 0x10FFFF), size=st.integers(0, 5000), probe=st.integers(0, 0x10FFFF))
def test_byte_ranges_are_exactly_the_code_points(low: int, size: int, probe: int) -> None:
    high = min(low + size, 0x10FFFF)
    ranges = list(utf8_ranges(low, high))
    for code in {low, high, (low + high) // 2, probe}:
        if not 0xD800 <= code <= 0xDFFF:
            content = chr(code).encode()
            matches = [
                row
                for row in ranges
                if len(row) == len(content) and all(a <= x <= b for (a, b), x in zip(row, content, strict=True))
            ]
            assert len(matches) == (low <= code <= high)


@pytest.mark.parametrize("bad", ["(", "a)", "[a", "a{", "a{x}", "^a", "a$", "*a", r"\b", r"\1", "\\"])
def test_what_the_automaton_does_not_know_it_refuses(bad: str) -> None:
    with pytest.raises(UserError, match="regex"):
        compile_regex(bad)


# ---------------------------------------------------------------------- token healing


def test_a_prompt_that_ends_inside_a_token_is_healed(tokenizer: Tokenizer) -> None:
    by_text = {
        tokenizer.token_bytes(id_): id_ for id_ in range(tokenizer.vocab_size) if id_ not in tokenizer.special_ids
    }
    longer = next(text for text in sorted(by_text) if len(text) >= 3 and text.isascii() and text[:-1] in by_text)
    prompt = [by_text[b"@"], by_text[b"@"], by_text[longer[:-1]]]
    healed = heal(tokenizer, prompt)
    assert healed.constraint is not None and healed.removed == longer[:-1].decode()
    assert healed.prompt_ids == prompt[:2]
    constraint = healed.constraint
    allowed = allowed_tokens(constraint, tokenizer.vocab_size)
    removed = longer[:-1]
    assert by_text[longer] in allowed and not tokenizer.special_ids & set(allowed)
    texts = {tokenizer.token_bytes(id_) for id_ in allowed}
    expected = {text for text in by_text if text.startswith(removed) or removed.startswith(text)}
    assert texts == expected
    whole, parts = constraint.copy(), constraint.copy()
    whole.accept(by_text[longer])
    for byte in removed:
        assert not parts.is_accepting
        parts.accept(by_text[bytes([byte])])
    for done in (whole, parts):
        assert done.is_accepting and not done.is_finished
        assert len(allowed_tokens(done, tokenizer.vocab_size)) == tokenizer.vocab_size
    parts.rollback(1)
    assert not parts.is_accepting and parts.allowed([by_text[bytes([removed[-1]])], 0, 1]) == 3
    with pytest.raises(BottegaError):
        constraint.accept(by_text[b"@"])


def test_what_needs_no_healing_stays(tokenizer: Tokenizer) -> None:
    special, plain = min(tokenizer.stop_ids), tokenizer.encode("@")[0]
    for prompt in ([plain], [plain, special], [special], [plain, plain]):
        healed = heal(tokenizer, prompt)
        assert healed.prompt_ids == prompt and healed.constraint is None and healed.removed == ""


def test_healing_never_splits_a_character(tokenizer: Tokenizer) -> None:
    """The tiny tokenizer has pieces that begin and end within characters."""
    for text in ("naï", "日", "x🎉", "é"):
        prompt = [tokenizer.encode("@")[0], *tokenizer.encode(text)]
        healed = heal(tokenizer, prompt)
        assert tokenizer.decode(healed.prompt_ids) + healed.removed == "@" + text


# ---------------------------------------------------------------------- settings of the verb


def test_settings_of_a_verb(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer"}')
    (tmp_path / "grammar.lark").write_text('start: "x"')
    for values, good, bad in (
        ({"json_schema": tmp_path / "schema.json"}, "12", "x"),
        ({"regex": "a+"}, "aa", "b"),
        ({"choice": ("yes", "no")}, "no", "x"),
        ({"grammar": tmp_path / "grammar.lark"}, "x", "y"),
    ):
        constraint = constraint_of(Structured.parse(values), tokenizer)
        assert constraint is not None
        assert takes(constraint, tokenizer, good) and not takes(constraint, tokenizer, bad)
    assert constraint_of(Structured(), tokenizer) is None
    with pytest.raises(UserError, match="regex and choice contradict"):
        Structured.parse({"regex": "a", "choice": ("b",)})
    with pytest.raises(UserError, match="cannot be read"):
        constraint_of(Structured(json_schema=tmp_path / "none.json"), tokenizer)
    (tmp_path / "schema.json").write_text("{")
    with pytest.raises(UserError, match=r"json_schema .*schema\.json is not JSON"):
        constraint_of(Structured(json_schema=tmp_path / "schema.json"), tokenizer)
