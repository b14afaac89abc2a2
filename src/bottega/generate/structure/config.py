"""Settings of a verb that give the answer its form. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import model_validator

from bottega.core.errors import UserError
from bottega.core.schema import Config

if TYPE_CHECKING:
    from bottega.generate.structure.grammar import GrammarConstraint
    from bottega.tokenizer.tokenizer import Tokenizer


class Structured(Config):
    """What the answer must be; at most one of these."""

    sections = {"json_schema": "Form of the answer (one of them)"}

    json_schema: Path | None = None
    """The answer is JSON that satisfies the JSON Schema in this file."""
    regex: str | None = None
    """The whole answer matches this regular expression."""
    choice: tuple[str, ...] = ()
    """The answer is one of these texts (give it several times)."""
    grammar: Path | None = None
    """The answer follows the grammar in this file, in Lark's notation or GBNF's."""

    @model_validator(mode="after")
    def _one_form(self) -> Structured:
        if len(self._given) > 1:
            raise ValueError(f"{' and '.join(self._given)} contradict each other; give one of them")
        return self

    @property
    def has_form(self) -> bool:
        """Whether the answer must have a form."""
        return bool(self._given)

    @property
    def _given(self) -> list[str]:
        return [name for name in Structured.model_fields if getattr(self, name) not in (None, ())]


def constraint_of(config: Structured, tokenizer: Tokenizer) -> GrammarConstraint | None:
    """The constraint that a verb's settings ask for, None for free text. Raises UserError naming the setting."""
    from bottega.generate.structure.grammar import choice, lark, regex
    from bottega.generate.structure.schema import json_schema

    if config.json_schema is not None:
        return json_schema(tokenizer, _read(config.json_schema), field=f"json_schema {config.json_schema}")
    if config.regex is not None:
        return regex(tokenizer, config.regex)
    if config.choice:
        return choice(tokenizer, config.choice)
    if config.grammar is not None:
        return lark(tokenizer, _read(config.grammar), field=f"grammar {config.grammar}")
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
