"""What stands beside a vocabulary: the names of its special tokens, added tokens, BOS and EOS rules, a template.

`tokenizer_config.json` (with `added_tokens_decoder`), `special_tokens_map.json`,
`added_tokens.json`, `chat_template.jinja`, and `config.json` for the kind of model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.errors import UserError
from bottega.core.model_files import chat_template, optional_object
from bottega.tokenizer.files import named_tokens, token_ids
from bottega.tokenizer.foreign.limits import MAX_ADDED_TOKENS, MAX_VOCABULARY, is_text, is_token

# The kind of tokenizer that a kind of model has, for folders whose config does not name it.
CLASS_OF_MODEL = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("t5", "mt5", "umt5"), "T5Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj"), "GPT2Tokenizer"),
    **dict.fromkeys(("bert", "distilbert"), "BertTokenizer"),
}
# Whether each kind begins a text with BOS and ends it with EOS, where its config does not say.
ADDS = {"LlamaTokenizer": (True, False), "CodeLlamaTokenizer": (True, False), "GemmaTokenizer": (True, False),
        "T5Tokenizer": (False, True)}  # fmt: skip
_MOVED = "its ids are not those of its vocabulary file"
_CHANGED = "it changes the text in a way that no vocabulary file tells"
_OWN = "it works by a method of its own"
# Kinds that are not read, and why. (`Fast` at the end of a name says nothing about the ids.)
REFUSED = {
    **dict.fromkeys(("XLMRoberta", "Camembert", "MBart", "MBart50", "Nllb", "M2M100", "Barthez", "PLBart"), _MOVED),
    **dict.fromkeys(("XGLM", "Pegasus", "Marian", "Speech2Text", "SeamlessM4T", "Cpm", "Bertweet", "ErnieM"), _MOVED),
    **dict.fromkeys(("Albert", "XLNet", "RemBert", "FNet", "BertJapanese"), _CHANGED),
    **dict.fromkeys(("CLIP", "Rwkv", "Rwkv5", "FSMT", "XLM", "CTRL", "OpenAIGPT", "ProphetNet", "Luke"), _OWN),
}

FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "config.json",
         "generation_config.json")  # fmt: skip
_ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else is done to it."""

    id: int
    content: str
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False

    def as_data(self) -> dict[str, Any]:
        """As tokenizer.json has it."""
        return vars(self).copy()


@dataclass(frozen=True)
class Companions:
    """The other files' contents. `names` maps `bos_token` and the like to their text."""

    config: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    added: list[AddedToken] = field(default_factory=list)
    tokenizer_class: str = ""
    chat_template: str | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    """The ids of BOS, EOS and padding that generation_config.json, or else config.json, names."""

    @classmethod
    def read(cls, folder: Path) -> Companions:
        """Of a folder; raises UserError if a file cannot be read or the kind of tokenizer is one that is refused."""
        config = optional_object(folder / "tokenizer_config.json")
        named = {**named_tokens(optional_object(folder / "special_tokens_map.json")), **named_tokens(config)}
        names = {role: token for role, token in named.items() if is_token(token)}
        listed = optional_object(folder / "added_tokens.json")
        template = chat_template(folder, config)
        if template is not None and not is_text(template):
            raise UserError(f"{folder}: the chat template is no Unicode text")
        model, generation = optional_object(folder / "config.json"), optional_object(folder / "generation_config.json")
        companions = cls(
            config=config,
            names=names,
            added=list(_added(config, listed, set(names.values()), folder)),
            tokenizer_class=_class(config, model),
            chat_template=template,
            generation={
                key: ids for key in _ID_KEYS if (ids := token_ids(generation.get(key)) or token_ids(model.get(key)))
            },
        )
        _refuse(companions.tokenizer_class, folder)
        return companions

    def adds(self, role: str) -> bool:
        """Whether a text gets BOS in front (`bos`) or EOS at its end (`eos`)."""
        given = self.config.get(f"add_{role}_token")
        if isinstance(given, bool):
            return given
        return ADDS.get(self.tokenizer_class, (False, False))[role == "eos"]

    @property
    def legacy(self) -> bool:
        """Whether every part between special tokens gets a space in front, not only the first."""
        return self.config.get("legacy") is not False

    def flag(self, name: str, default: bool) -> bool:
        """A boolean of the config."""
        value = self.config.get(name)
        return value if isinstance(value, bool) else default


def _class(config: dict[str, Any], model: dict[str, Any]) -> str:
    named = config.get("tokenizer_class")
    if isinstance(named, str) and named.removesuffix("Fast") not in ("", "PreTrainedTokenizer", "TokenizersBackend"):
        return named.removesuffix("Fast")
    kind = model.get("model_type")
    return CLASS_OF_MODEL.get(kind, "") if isinstance(kind, str) else ""


def _refuse(kind: str, folder: Path) -> None:
    why = REFUSED.get(kind.removesuffix("Tokenizer"))
    if why:
        raise UserError(
            f"{folder} has a {kind}, which is not supported: {why}",
            hint="Save it once with transformers, which writes a tokenizer.json.",
        )


def _added(config: dict[str, Any], listed: dict[str, Any], names: set[str], folder: Path) -> Iterator[AddedToken]:
    decoder = config.get("added_tokens_decoder")
    entries = list(decoder.items()) if isinstance(decoder, dict) else []
    entries = entries or [(id_, {"content": token}) for token, id_ in listed.items()]
    if len(entries) > MAX_ADDED_TOKENS:
        raise UserError(f"{folder} adds {len(entries):,} tokens, more than {MAX_ADDED_TOKENS:,}")
    extra = config.get("additional_special_tokens")
    special = names | {token for token in (extra if isinstance(extra, list) else []) if isinstance(token, str)}
    for key, entry in entries:
        flags = entry if isinstance(entry, dict) else {}
        content, number = flags.get("content"), str(key)[:60]
        id_ = int(number) if number.isdecimal() and len(number) < 10 else -1
        if not is_token(content) or not 0 <= id_ < MAX_VOCABULARY:
            raise UserError(f"{folder}: {str(content)[:60]!r} with the id {number!r} is no added token")
        is_special = flags["special"] is True if "special" in flags else content in special
        yield AddedToken(
            id_,
            content,
            special=is_special,
            **{
                name: flags.get(name) is True if name in flags else name == "normalized" and not is_special
                for name in ("single_word", "lstrip", "rstrip", "normalized")
            },
        )
