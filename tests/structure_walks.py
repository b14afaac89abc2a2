"""Random tiny byte-level tokenizers, and random walks over a constraint's masks: a model without opinions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from bottega.generate.constraint import Constraint, mask_words, unpack
from bottega.tokenizer.tokenizer import Tokenizer, byte_of_character

SOURCE = (
    '{"name": "alpha", "age": 12, "tags": ["a", "b"], "日": {"x": [1, 2.5, -3e2, null, true, false]}}\n'
    '[{"k1": "2024-02-28T12:30:00Z"}, {}, [], ""]  <tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> naïve 🎉'
)
STOPS = ("<|end|>", "<|turn|>")


def tiny(folder: Path, seed: int, *, extra: int = 200, special: tuple[str, ...] = ()) -> Tokenizer:
    """256 bytes, `extra` pieces of JSON cut at random (through characters too), two stop tokens, more special ones."""
    draw = random.Random(seed)
    content = SOURCE.encode()
    pieces = {bytes([byte]) for byte in range(256)}
    while len(pieces) < 256 + extra:
        start = draw.randrange(len(content))
        pieces.add(content[start : start + draw.randint(2, 7)])
    letter = {byte: char for char, byte in byte_of_character().items()}
    order = sorted(pieces)
    draw.shuffle(order)
    vocab = {"".join(letter[byte] for byte in piece): index for index, piece in enumerate(order)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (*STOPS, *special)])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": STOPS[0]}))
    ids = [backend.token_to_id(text) for text in STOPS]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return Tokenizer.load(folder)


def allowed_tokens(constraint: Constraint, vocabulary: int) -> list[int]:
    mask = torch.full((mask_words(vocabulary) + 1,), -1, dtype=torch.int32)  # one word more, as a padded model has
    constraint.fill(mask)
    assert mask[-1] == 0 or (not constraint.error and mask.eq(-1).all())
    return unpack(mask, vocabulary).nonzero().flatten().tolist()


def follow(constraint: Constraint, tokenizer: Tokenizer, text: str) -> str:
    """Read a text byte for byte; what of it was taken. (Bytes, so that no way to cut it is preferred.)"""
    single = {tokenizer.token_bytes(id_): id_ for id_ in range(tokenizer.vocab_size)}
    content = text.encode()
    for place, byte in enumerate(content):
        token = single[bytes([byte])]
        if constraint.allowed([token]) == 0:
            return content[:place].decode("utf-8", "replace")
        constraint.accept(token)
    return text


def takes(constraint: Constraint, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the whole text is an answer that the constraint allows."""
    constraint = constraint.copy()
    return follow(constraint, tokenizer, text) == text and constraint.is_accepting


def walk(constraint: Constraint, tokenizer: Tokenizer, draw: random.Random, *, free: int, most: int) -> str | None:
    """A text by random tokens, after `free` of them toward an end of JSON; None if `most` did not suffice."""
    constraint = constraint.copy()
    content = bytearray()
    for step in range(most):
        tokens = allowed_tokens(constraint, tokenizer.vocab_size)
        assert tokens, content
        ends = [token for token in tokens if token in tokenizer.stop_ids]
        assert bool(ends) == constraint.is_accepting, (content, ends)
        assert not constraint.is_finished or len(ends) == len(tokens)
        if ends and (len(ends) == len(tokens) or step >= free or draw.random() < 0.2):
            token = draw.choice(ends)
            constraint.accept(token)
            assert constraint.is_finished and constraint.judge(content.decode()).valid, content
            return content.decode()
        others = [token for token in tokens if token not in tokenizer.stop_ids]
        token = draw.choice(others) if step < free else _toward_end(others, bytes(content), tokenizer, draw)
        constraint.accept(token)
        content += tokenizer.token_bytes(token)
    assert not constraint.error
    return None


def _toward_end(tokens: list[int], content: bytes, tokenizer: Tokenizer, draw: random.Random) -> int:
    by_text = {tokenizer.token_bytes(token): token for token in tokens}
    in_string = content.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2
    for text in (b'"',) if in_string else (b"}", b"]", b",", b":", b'"'):
        if text in by_text:
            return by_text[text]
    shortest = min(map(len, by_text))
    return draw.choice([token for text, token in by_text.items() if len(text) == shortest])
