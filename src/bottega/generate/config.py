"""Settings of the verbs `generate` and `chat`. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Literal, Self

from pydantic import Field, model_validator

from bottega.core.schema import OnModel, Seed
from bottega.generate.search.config import Searched
from bottega.generate.settings import Sampling
from bottega.generate.stopping import StopStrings
from bottega.generate.structure.config import Structured


class OnEngine(OnModel):
    """How the engine runs a model."""

    sections = {"weights": "Engine"}

    weights: Literal["bfloat16", "int8", "int4"] | None = None
    """Keep the weights as this, on the CPU (default: as they are); int8 and int4 are not the same model any more."""
    cache_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Keep keys and values as this (auto: the precision that is computed in)."""
    cache_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the cache holds (default: full contexts for a full batch, within a quarter of the free memory)."""
    speculate: Literal["off", "lookup", "draft", "early-exit"] = "off"
    """Guess tokens ahead: from the text so far, by a smaller model, or by the first layers. Answers stay the same."""
    draft_model: str | None = None
    """Model that guesses, with --speculate draft."""
    draft_layers: int | None = Field(default=None, ge=1)
    """Layers that guess, with --speculate early-exit (default: a quarter)."""
    max_drafts: int = Field(default=8, ge=1, le=64)
    """Most tokens guessed at once; how many is adapted to what stands."""

    @model_validator(mode="after")
    def _drafts(self) -> Self:
        if (self.speculate == "draft") != (self.draft_model is not None):
            raise ValueError("--speculate draft and --draft-model go together")
        if self.draft_layers is not None and self.speculate != "early-exit":
            raise ValueError("--draft-layers needs --speculate early-exit")
        if self.speculate == "off" and self.max_drafts != type(self).model_fields["max_drafts"].default:
            raise ValueError("--max-drafts needs --speculate")
        return self


class Sampled(OnEngine):
    """How tokens are chosen."""

    sections = {
        "temperature": "Choosing tokens",
        "repetition_penalty": "Against repetition",
        "logit_bias": "Words",
        "stop": "Where the answer ends",
        "seed": "Choosing tokens",
        "min_new_tokens": "Where the answer ends",
    }

    temperature: float = Field(default=1.0, ge=0)
    """0 takes the most probable token each time; 1 draws from the model's distribution."""
    top_k: int = Field(default=0, ge=0)
    """Draw only from the K most probable tokens (0: all)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together reach this probability."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Draw only tokens at least this probable relative to the most probable one."""
    typical_p: float = 1.0
    """Draw only from the tokens whose surprise is nearest the expected one, that together reach this probability."""
    top_h: float = 0.0
    """Draw only from the most probable tokens that hold this share of the entropy (0: off)."""
    epsilon_cutoff: float = 0.0
    """Draw only tokens at least this probable (0: off)."""
    eta_cutoff: float = 0.0
    """The same, but lower where the distribution is flat (0: off)."""
    top_n_sigma: float = 0.0
    """Draw only tokens whose score is within so many standard deviations of the highest (0: off)."""
    top_a: float = 0.0
    """Draw only tokens at least this times the square of the highest probability (0: off)."""
    tail_free: float = 1.0
    """Cut the tail where the sorted probabilities have bent by this share (1: off)."""
    xtc_probability: float = 0.0
    """With this chance, exclude the likely tokens but the least likely of them (0: off)."""
    xtc_threshold: float = 0.1
    """How probable a token must be to be one of those likely ones."""
    mirostat: int = 0
    """1 or 2: hold the surprise of the text at --mirostat-tau by one of the paper's two algorithms (0: off)."""
    mirostat_tau: float = 5.0
    """Surprise that mirostat aims at, in bits per token."""
    mirostat_eta: float = 0.1
    """How fast mirostat follows."""
    dynatemp_range: float = 0.0
    """Let the temperature vary this much to both sides, high where the model is unsure (0: off)."""
    dynatemp_exponent: float = 1.0
    """Power of the normalised entropy that the temperature follows."""
    samplers: str | None = None
    """Their order: transformers (default), llama.cpp, or names with ; between, as in "top_k;top_p;temperature"."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    """Above 1 makes tokens that stand in the text already less probable."""
    presence_penalty: float = 0.0
    """Taken off the score of each token that the answer has said already."""
    frequency_penalty: float = 0.0
    """The same, once for each time it was said."""
    penalty_range: int = 0
    """These penalties look at the last so many tokens (0: at all)."""
    dry_multiplier: float = 0.0
    """DRY: how much to punish a token that would go on repeating a sequence of the text (0: off)."""
    dry_base: float = 1.75
    """The punishment grows by this with each token of the sequence."""
    dry_allowed_length: int = 2
    """Sequences up to this length repeat freely."""
    dry_range: int = 0
    """DRY looks at the last so many tokens (0: at all)."""
    dry_breaker: tuple[str, ...] = ("\n", ":", '"', "*")
    """A sequence ends at a token that contains this text (may be given several times)."""
    no_repeat_ngram_size: int = 0
    """Never say the same N tokens in a row twice (0: off)."""
    logit_bias: tuple[str, ...] = ()
    """TOKEN=BIAS: add to a token's score; the token by its text or id (may be given several times)."""
    allowed_word: tuple[str, ...] = ()
    """Say only the tokens of this word (may be given several times)."""
    banned_word: tuple[str, ...] = ()
    """Never say this word, as the tokenizer writes it (may be given several times)."""
    stop: tuple[str, ...] = ()
    """End before this text (may be given several times)."""
    stop_token: tuple[str, ...] = ()
    """End at this token, by its text or id (may be given several times)."""
    stop_regex: str | None = None
    """End before the first text that matches this pattern."""
    include_stop_str: bool = False
    """Show the text that ended the answer."""
    ignore_eos: bool = False
    """Go on past the model's own end of the answer."""
    seed: Seed | None = None
    """Seed of the draws (default: another one each time)."""
    min_new_tokens: int = 0
    """Shortest answer, in tokens."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer, in tokens."""

    @model_validator(mode="after")
    def _samples(self) -> Self:
        settings = self.settings()
        StopStrings.of(settings)
        return self

    def settings(self) -> Sampling:
        """The sampler's settings, without those that take a tokenizer."""
        same = {field.name for field in fields(Sampling)} & type(self).model_fields.keys() - {"logit_bias", "samplers"}
        order = tuple(name.strip() for name in re.split("[;,]", self.samplers or "") if name.strip())
        return Sampling(samplers=order, **{name: getattr(self, name) for name in same})


class Generate(Sampled, Searched, Structured):
    """Continue a prompt."""

    sections = {"prompt": "Prompt", "trace": "Options"}

    prompt: str
    """The text to continue; with --chat, the question to answer."""
    chat: bool = False
    """Put the prompt through the model's chat template."""
    system: str | None = None
    """System message of a chat."""
    heal: bool = False
    """Take back the prompt's last token where a longer one could stand there, so that a word may be finished."""
    trace: bool = False
    """Show of each token what else could have come, how probable it was, and what cut it off."""

    @model_validator(mode="after")
    def _consistent(self) -> Generate:
        if self.system and not self.chat:
            raise ValueError("a system message needs --chat; without it the prompt is continued as plain text")
        if self.heal and (self.chat or self.has_form):
            raise ValueError(f"--heal and {'--chat' if self.chat else 'a form'} exclude each other: leave one out")
        self.search()
        return self


class Chat(Sampled):
    """Talk to a model in the terminal."""

    sections = {"system": "Chat"}

    system: str | None = None
    """System message."""
    temperature: float = Field(default=0.7, ge=0)
    """0 takes the most probable token each time; 1 draws from the model's distribution."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""
