"""Text to token ids and back: a `tokenizer.json` run by the `tokenizers` library.

Adds to it what the rest of the house relies on: plain text never becomes special tokens, the
exact bytes of every token, streaming decoding, and one place that says which ids begin and
end a text. The file formats are those of Hugging Face (`tokenizer.json` is the truth,
`tokenizer_config.json` names the special tokens, `generation_config.json` the stop tokens).
Files are untrusted: sizes are bounded and what cannot be read is a UserError.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import tokenizers

from bottega.core.errors import UserError
from bottega.core.hashing import digest_bytes, digest_tokenizer
from bottega.tokenizer.files import TokenizerFiles, read_files

Family = Literal["byte_level", "byte_fallback", "other"]
TokenKind = Literal["normal", "special", "added", "byte", "unused"]
T = TypeVar("T")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Put before a piece of text so that a SentencePiece-style model does not take it for a beginning.
_ANCHORS = ("\n", ">", "0", "\u2603")


class Tokenizer:
    """A loaded tokenizer. Make one with `Tokenizer.load(folder)`.

    `special_ids` are the ids that `decode` leaves out, `control_ids` those of them that only a
    template or a document boundary may produce (all but "unknown"), `stop_ids` those at which
    generation ends; `adds_bos` says whether a text begins with `bos_id`.
    """

    def __init__(self, folder: Path, files: TokenizerFiles) -> None:
        self.folder = folder
        self.files = files
        self._backend = _guarded(lambda: _backend(files), f"{folder / 'tokenizer.json'} cannot be loaded")
        added = self._backend.get_added_tokens_decoder()
        self._added: dict[int, str] = {id_: token.content for id_, token in added.items()}
        self.vocab_size: int = _highest_id(self._backend) + 1
        if self.vocab_size == 0:
            raise UserError(f"{folder / 'tokenizer.json'} has no tokens")
        self.bos_id = self._named_id("bos")
        self.eos_id = self._named_id("eos")
        self.pad_id = self._named_id("pad")
        stop = {self._in_range(id_, "stop") for id_ in files.stop_ids}
        self.stop_ids: frozenset[int] = frozenset(stop | ({self.eos_id} if self.eos_id is not None else set()))
        self.special_ids: frozenset[int] = frozenset(
            {id_ for id_, token in added.items() if token.special} | (self.stop_ids & set(self._added))
        )
        self.special_tokens: dict[str, str] = files.special_tokens
        self.chat_template: str | None = files.chat_template
        self.hash: str = files.hash
        self.template_hash: str = digest_bytes((files.chat_template or "").encode("utf-8", "replace"))
        # What plain text must never become; "unknown" is the one special token that it may.
        unknown = {self._backend.token_to_id(token) for token in files.unknown_tokens}
        # (GPT-2 gives its end-of-text token that name too, but has no use for it: bytes write everything.)
        self.unknown_ids: frozenset[int] = frozenset(
            id_ for id_ in unknown if id_ is not None and id_ not in (self.bos_id, self.eos_id)
        )
        self.control_ids: frozenset[int] = self.special_ids - self.unknown_ids
        self.family: Family = _family(files.data.get("decoder"))
        self._prefix: Literal["never", "first", "always"] = _prefix_scheme(files.data)
        self.adds_bos: bool = self._finds_adds_bos()

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `folder/tokenizer.json` and what stands beside it; raises UserError if it is missing or malformed."""
        return cls(folder, read_files(folder))

    # ------------------------------------------------------------------ text to ids

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. No special tokens are added, and special strings inside `text` stay text."""
        return self._plain(text, continues=False)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in parallel."""
        for text in texts:
            _check_unicode(text)
        encodings = _guarded(
            lambda: self._backend.encode_batch_fast(list(texts), add_special_tokens=False),
            "the texts cannot be encoded",
        )
        rows = [encoding.ids for encoding in encodings]
        for index, row in enumerate(rows):
            if not self.control_ids.isdisjoint(row):
                rows[index] = self.encode(texts[index])
        return rows

    def encode_markup(self, text: str, *, previous: int | None = None) -> list[int]:
        """Ids of text in which special strings ARE special tokens: for what a chat template wrote.

        `previous` is the id that stands before it, None at the beginning of a text.
        """
        continues = self._prefix == "first" or (previous is not None and previous not in self._added)
        return self._run(self._markup_backend, text, continues=previous is not None and continues)

    def encode_inside(self, text: str) -> list[int]:
        """`encode` of text that does not begin a document: without the space that some tokenizers put before it."""
        return self._plain(text, continues=True)

    def document_prefix(self) -> list[int]:
        """What stands before the text of a document: `[bos_id]` if the tokenizer adds one, else nothing."""
        return [self.bos_id] if self.adds_bos and self.bos_id is not None else []

    def _plain(self, text: str, *, continues: bool) -> list[int]:
        ids = self._run(self._backend, text, continues=continues)
        if self.control_ids.isdisjoint(ids):
            return ids
        # The model's own vocabulary made a special token of ordinary text (Unigram and WordPiece
        # can): encode the halves apart, which in the end cuts the special string in two.
        if len(text) < 2:
            raise UserError(f"{text!r} cannot be encoded as plain text: the tokenizer makes a special token of it")
        middle = len(text) // 2
        return self._plain(text[:middle], continues=continues) + self._plain(text[middle:], continues=True)

    def _run(self, backend: tokenizers.Tokenizer, text: str, *, continues: bool) -> list[int]:
        def ids_of(piece: str) -> list[int]:
            return _guarded(lambda: backend.encode(piece, add_special_tokens=False).ids, "the text cannot be encoded")

        if not text:
            return []
        _check_unicode(text)
        if continues and self._prefix != "never":
            for anchor in _ANCHORS:
                before, together = ids_of(anchor), ids_of(anchor + text)
                # An anchor that is dropped, or unknown like what follows it, separates nothing.
                if before and before[-1] not in self.unknown_ids and together[: len(before)] == before:
                    return together[len(before) :]
        return ids_of(text)

    @cached_property
    def _markup_backend(self) -> tokenizers.Tokenizer:
        backend = _backend(self.files)
        backend.encode_special_tokens = False
        return backend

    # ------------------------------------------------------------------ ids to text

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of the ids; bytes that are no UTF-8 become U+FFFD; ids outside the vocabulary are skipped."""
        known = [id_ for id_ in ids if 0 <= id_ < self.vocab_size]
        if skip_special:
            known = [id_ for id_ in known if id_ not in self.special_ids]
        if self.family == "other":
            return self._backend.decode(known, skip_special_tokens=False)
        detokenizer = Detokenizer(self, skip_special=False)
        return "".join(map(detokenizer.add, known)) + detokenizer.flush()

    def token_bytes(self, id_: int) -> bytes:
        """The exact bytes that the token stands for; special tokens: their text; unknown ids: nothing."""
        if id_ in self._added:
            return self._added[id_].encode("utf-8")
        token = self._backend.id_to_token(id_) if 0 <= id_ < self.vocab_size else None
        if token is None:
            return b""
        if self.family == "byte_level":
            table = byte_of_character()
            if all(character in table for character in token):
                return bytes(table[character] for character in token)
        if self.family == "byte_fallback":
            if byte := _BYTE_TOKEN.fullmatch(token):
                return bytes.fromhex(byte[1])
            return token.replace("\u2581", " ").encode("utf-8")
        return token.encode("utf-8")

    def id_of(self, token: str) -> int | None:
        """The id of a token by its text as the vocabulary has it, None if it is none."""
        return self._backend.token_to_id(token)

    def extended(self, tokens: Sequence[str], *, special: bool) -> tuple[str, list[int]]:
        """The content of a tokenizer.json with `tokens` behind the vocabulary, and their ids; raises UserError."""
        for token in tokens:
            _check_unicode(token)
        backend = tokenizers.Tokenizer.from_str(self.files.backend_json())
        added = [tokenizers.AddedToken(token, special=special, normalized=False) for token in tokens]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
        ids = [id_ for token in tokens if (id_ := backend.token_to_id(token)) is not None]
        return backend.to_str(pretty=False) + "\n", ids

    def with_content(self, content: str) -> Tokenizer:
        """The same tokenizer with another tokenizer.json, such as `extended` gives."""
        data, raw = json.loads(content), content.encode("utf-8")
        files = replace(self.files, tokenizer_bytes=raw, data=data, marked_special=False, hash=digest_tokenizer(data))
        return Tokenizer(self.folder, files)

    def token_kind(self, id_: int) -> TokenKind:
        """What a token is for; `byte` is one of the 256 that write any byte, `unused` an id without a token."""
        if id_ in self.special_ids:
            return "special"
        if id_ in self._added:
            return "added"
        token = self._backend.id_to_token(id_) if 0 <= id_ < self.vocab_size else None
        if token is None:
            return "unused"
        if self.family == "byte_level":
            return "byte" if token in byte_of_character() else "normal"
        return "byte" if self.family == "byte_fallback" and _BYTE_TOKEN.fullmatch(token) else "normal"

    @cached_property
    def control_tokens(self) -> list[str]:
        """The text of the control ids, longest first."""
        return sorted((self._added[id_] for id_ in self.control_ids if self._added.get(id_)), key=len, reverse=True)

    def token_text(self, id_: int) -> str:
        """The token for display: its text, with bytes that are no complete UTF-8 written as \\xNN."""
        return self.token_bytes(id_).decode("utf-8", "backslashreplace")

    # ------------------------------------------------------------------ what the files say

    def _in_range(self, id_: int, name: str) -> int:
        if not 0 <= id_ < self.vocab_size:
            raise UserError(
                f"{self.folder}: the {name} token has id {id_}, but the tokenizer has {self.vocab_size} tokens",
                hint="tokenizer.json does not belong to the config beside it.",
            )
        return id_

    def _named_id(self, name: Literal["bos", "eos", "pad"]) -> int | None:
        token = self.files.special_tokens.get(f"{name}_token")
        id_ = self._backend.token_to_id(token) if token is not None else None
        if id_ is not None:
            return id_
        fallback = self.files.fallback_ids.get(name)
        return None if fallback is None else self._in_range(fallback, name)

    def _finds_adds_bos(self) -> bool:
        if self.bos_id is None:
            return False
        if self.files.adds_bos is not None:
            return self.files.adds_bos
        return self._backend.encode("a", add_special_tokens=True).ids[:1] == [self.bos_id]


class Detokenizer:
    """Streaming text from ids: `add` returns the characters that have become complete.

    The pieces joined (with `flush` at the end) are `tokenizer.decode` of all ids. With `previous`, the id that stands
    before them, they are what decoding adds to the text so far: behind a word, its space is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, previous: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset[int]()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        # SentencePiece writes a space before the first word, and takes it away when decoding.
        begins = tokenizer.family == "byte_fallback" and (previous is None or previous in tokenizer.special_ids)
        self._spaces_to_strip = _stripped_spaces(tokenizer.files.data) if begins else 0
        # Only for tokenizers whose tokens are not bytes: the ids so far, and how much text was given out.
        self._ids: list[int] = []
        self._given = ""

    def add(self, id_: int) -> str:
        """The text that `id_` completes; empty while a character is incomplete."""
        if id_ in self._skip:
            return ""
        if self._tokenizer.family == "other":
            return self._add_by_decoding(id_)
        content = self._tokenizer.token_bytes(id_)
        if self._spaces_to_strip and content:
            spaces = min(len(content) - len(content.lstrip(b" ")), self._spaces_to_strip)
            content = content[spaces:]
            self._spaces_to_strip = 0 if content else self._spaces_to_strip - spaces
        return self._utf8.decode(content)

    def fork(self) -> Detokenizer:
        """One that goes on from here by itself."""
        other = copy(self)
        other._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        other._utf8.setstate(self._utf8.getstate())
        other._ids = list(self._ids)
        return other

    def flush(self) -> str:
        """What an incomplete character at the end leaves (U+FFFD), or nothing."""
        return "" if self._tokenizer.family == "other" else self._utf8.decode(b"", final=True)

    def _add_by_decoding(self, id_: int) -> str:
        self._ids.append(id_)
        text = self._tokenizer.decode(self._ids, skip_special=False)
        if not text.startswith(self._given):
            return ""
        new, self._given = text[len(self._given) :], text
        return new


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """The printable character by which a byte-level vocabulary writes each byte (GPT-2's table), inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


def _backend(files: TokenizerFiles) -> tokenizers.Tokenizer:
    """A fresh backend that neither truncates, pads nor drops merges at random, and reads special strings as text."""
    backend = tokenizers.Tokenizer.from_str(files.backend_json())
    backend.no_truncation()
    backend.no_padding()
    missing = [token for token in files.special_tokens.values() if backend.token_to_id(token) is not None]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in missing if token not in known]
    )
    backend.encode_special_tokens = True
    return backend


def _highest_id(backend: tokenizers.Tokenizer) -> int:
    """The last id; -1 for an empty vocabulary. Ids may have gaps, and then all have to be looked at."""
    count = backend.get_vocab_size(with_added_tokens=True)
    if all(backend.id_to_token(id_) is not None for id_ in range(count)):
        return count - 1
    return max(backend.get_vocab(with_added_tokens=True).values(), default=-1)


def _check_unicode(text: str) -> None:
    """Raise UserError for half a surrogate pair (JSON can write one), which no encoding of text has."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"character {error.start} of the text is a lone surrogate (U+{code:04X}), which is not Unicode text"
        ) from None


def _guarded(work: Callable[[], T], what: str) -> T:
    """Run a call of the Rust library; what it raises on hostile files (panics too) becomes a UserError."""
    try:
        return work()
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception
        raise UserError(f"{what}: {error}") from None


def _parts(node: Any, list_key: str) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as the flat list of its steps."""
    if not isinstance(node, dict):
        return []
    if node.get("type") == "Sequence":
        return [part for child in node.get(list_key) or [] for part in _parts(child, list_key)]
    return [node]


def _family(decoder: Any) -> Family:
    kinds = {part.get("type") for part in _parts(decoder, "decoders")}
    if "ByteLevel" in kinds:
        return "byte_level"
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return "byte_fallback"
    return "other"


def _prefix_scheme(data: dict[str, Any]) -> Literal["never", "first", "always"]:
    """Whether the tokenizer puts a space before a text: never, at its beginning, or after every special token too."""
    if any(part.get("type") == "Prepend" for part in _parts(data.get("normalizer"), "normalizers")):
        return "always"
    for part in _parts(data.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") == "Metaspace":
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            return scheme if scheme in ("never", "first", "always") else "always"
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            return "always"
    return "never"


def _stripped_spaces(data: dict[str, Any]) -> int:
    """How many spaces the decoder takes away at the beginning of a text, if they are there."""
    for part in _parts(data.get("decoder"), "decoders"):
        start = part.get("start")
        if part.get("type") == "Strip" and part.get("content") == " " and isinstance(start, int) and start > 0:
            return start
        if part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never":
            return int(part.get("add_prefix_space", True) is not False)
    return 0
