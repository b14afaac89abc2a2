"""A verb's command: its help under headings, a section's settings as options, and a hint for options it does not have.

`--adapter.r 8` is `adapter.r=8`: one setting of a section. A name that another program has for a setting
(`--lora-r`) is none of ours, but the error says which of ours it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from bottega.core.errors import UserError
    from bottega.core.verb import Verb

_INNER = re.compile(r"--(\w[\w-]*(?:\.[\w-]+)+)(=.*)?", re.DOTALL)


def as_settings(words: Sequence[str], sections: Collection[str]) -> list[str]:
    """`--section.name VALUE` and `--section.name=VALUE` as `section.name=VALUE`; other words as they are.

    What follows `--` is left alone, and what is in none of the `sections`. Raises UserError where a value is missing.
    """
    from bottega.core.errors import UserError

    found, rest = [], iter(words)
    for word in rest:
        if word == "--":
            return [*found, word, *rest]
        inner = _INNER.fullmatch(word)
        if inner is None or inner[1].partition(".")[0].replace("-", "_") not in sections:
            found.append(word)
            continue
        value = inner[2][1:] if inner[2] else next(rest, None)
        if value is None or (not inner[2] and value.startswith("--")):
            raise UserError(f"--{inner[1]} needs a value")
        found.append(f"{inner[1].replace('-', '_')}={value}")
    return found


def _ended(error: UserError) -> typer.Exit:
    """What ends the command once the error has been shown."""
    from rich.console import Console

    from bottega.cli.render import show_error

    show_error(error, Console(stderr=True))
    return typer.Exit(error.exit_status)


def command_of(verb: Verb) -> type[TyperCommand]:
    """The kind of command that the verb is."""

    class VerbCommand(_Command):
        of = verb

    return VerbCommand


class _Command(TyperCommand):
    of: Verb

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The settings of sections become words like `adapter.r=8`."""
        from bottega.core.errors import UserError
        from bottega.core.schema import option_hint

        config_type = self.of.config_type()
        try:
            words = as_settings(args, {*config_type.model_fields, self.of.name.replace(" ", "_")})
            return super().parse_args(ctx, words)
        except UserError as error:
            raise _ended(error) from None
        except Exception as error:  # click's, which newer typers carry within themselves
            unknown = getattr(error, "option_name", "")
            hint = option_hint(config_type, unknown) if unknown else ""
            if not hint:
                raise
            raise _ended(UserError(f"{self.of.name}: unknown option {unknown}", hint=hint)) from None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the sections in the order of their first options; what has no heading comes last."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                heading = getattr(parameter, "rich_help_panel", None) or "Options"
                is_argument = parameter.param_type_name == "argument"
                sections.setdefault("Arguments" if is_argument else heading, []).append(record)
        options = sections.pop("Options", [])
        for heading, records in {**sections, "Options": options}.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
