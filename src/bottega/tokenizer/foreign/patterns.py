r"""How byte-level tokenizers cut a text before merging: regular expressions, by the names people know them by.

The names are tiktoken's encodings, and what GGUF writes into `tokenizer.ggml.pre`. Each is one
expression or several, applied one after the other to what the one before left as pieces.
Sources: github.com/openai/tiktoken (openai_public.py), the tokenizer.json of each model, and
github.com/ggml-org/llama.cpp (llama-vocab.cpp) for GGUF's names. They are written for
Oniguruma, which the tokenizers library uses: `\z` is the end of the text, `$` that of a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tokenizers

from bottega.core.errors import UserError, did_you_mean
from bottega.tokenizer.foreign.steps import sequence, split

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
QWEN35 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_DIGIT = r"\p{N}"
_IDEOGRAPHS = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
# Letters with case, as DeepSeek lists them.
_CASED = (
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}"
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}"
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}"
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}"
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}"
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}"
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}"
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}"
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}"
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
)
DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_CASED}]+",
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
    r"\s+\z",
    _IDEOGRAPHS,
    _DIGIT,
)
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _IDEOGRAPHS, _DIGIT)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
)
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_THREE_DIGITS = r"[0-9][0-9][0-9]"


@dataclass(frozen=True)
class Pattern:
    """A way to cut a text; `whole_words` says that a piece which is a token is not put together by merges."""

    expressions: tuple[str, ...]
    whole_words: bool = False
    nfc: bool = False

    def pre_tokenizer(self, *, prefix_space: bool = False) -> dict[str, Any]:
        """The pre-tokenizer of a tokenizer.json: the cuts, then the bytes."""
        expressions = self.expressions
        built_in = expressions[-1] == GPT2  # the library's ByteLevel step can do it
        steps = [split(expression) for expression in (expressions[:-1] if built_in else expressions)]
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": prefix_space,
            "trim_offsets": True,
            "use_regex": built_in,
        }
        step = sequence([*steps, byte_level], "pretokenizers")
        assert step is not None
        return step

    def normalizer(self) -> dict[str, Any] | None:
        """The normalizer of a tokenizer.json."""
        return {"type": "NFC"} if self.nfc else None


# What `--pattern` takes.
PATTERNS = {
    "gpt2": Pattern((GPT2,)),
    "cl100k": Pattern((CL100K,)),
    "o200k": Pattern((O200K,)),
    "llama3": Pattern((LLAMA3,)),
    "qwen2": Pattern((QWEN2,), nfc=True),
    "tekken": Pattern((TEKKEN,)),
    "deepseek-llm": Pattern(DEEPSEEK_LLM),
    "deepseek-coder": Pattern(DEEPSEEK_CODER),
    "deepseek-v3": Pattern(DEEPSEEK_V3),
    "smollm": Pattern((_DIGIT, GPT2)),
}
_GGUF: tuple[tuple[Pattern, str], ...] = (
    (PATTERNS["gpt2"], "gpt-2 gpt2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de exaone4 modern-bert "
     "gigachat a.x-4.0 mellum trillion granite-docling"),
    (Pattern((LLAMA3,), whole_words=True), "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2"),
    (PATTERNS["llama3"], "dbrx smaug-bpe glm4 chatglm-bpe"),
    (PATTERNS["qwen2"], "qwen2 deepseek-r1-qwen"),
    (Pattern((QWEN2,)), "stablelm2 megrez hunyuan grok-2"),
    (Pattern((QWEN35,), nfc=True), "qwen35"),
    (PATTERNS["o200k"], "gpt-4o llama4 kanana2 minimax-m2"),
    (Pattern((TEKKEN,), whole_words=True), "tekken"),
    (PATTERNS["smollm"], "smollm starcoder refact command-r codeshell exaone minerva-7b"),
    (PATTERNS["deepseek-llm"], "deepseek-llm"),
    (PATTERNS["deepseek-coder"], "deepseek-coder"),
    (PATTERNS["deepseek-v3"], "deepseek-v3 hunyuan-dense joyai-llm"),
    (Pattern((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, _THREE_DIGITS)), "falcon"),
    (Pattern((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", _THREE_DIGITS)), "default"),
    (Pattern((BLOOM,)), "bloom poro-chat gpt3-finnish"),
    (Pattern((BLOOM, _DIGIT)), "viking"),
)  # fmt: skip
GGUF_PATTERNS = {name: pattern for pattern, names in _GGUF for name in names.split()}


def find_pattern(given: str) -> Pattern:
    """A pattern by its name, or the regular expression itself; raises UserError for what is neither."""
    if given in PATTERNS:
        return PATTERNS[given]
    if not given or given.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"{given!r} is no known pattern", hint=f"{did_you_mean(given, PATTERNS)} Or give a regular expression."
        )
    try:
        tokenizers.Regex(given)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"the pattern {given!r} is no regular expression: {error}") from None
    return Pattern((given,))
