"""Strict configuration: one pydantic model per verb, every field with a one-line doc.

The field's doc is the `--help` line, the JSON Schema's description and the row of the
docs page. An unknown key is an error that names the nearest right key. Config models
import no torch.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bottega.core.errors import UserError, did_you_mean, nearest
from bottega.core.known_names import KNOWN_NAMES

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One text, or several."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what both NumPy and torch take


class Config(BaseModel):
    """Base of every verb's settings: frozen, no unknown keys, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that cannot change what comes out (how often to save, say); a finished step stays finished."""
    sections: ClassVar[Mapping[str, str]] = {}
    """Headings in the help of a verb that has many settings, each by the first setting under it."""

    word: ClassVar[str] = ""
    """The setting that is meant where a section is given as one word."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_one_word(cls, value: Any) -> Any:
        return {cls.word: value} if cls.word and isinstance(value, str) else value

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from plain data; raises UserError with every problem, and the nearest right key for an unknown one."""
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise _user_error(cls, error, where) from None

    def as_data(self) -> dict[str, Any]:
        """Plain JSON-able values, paths as strings."""
        return self.model_dump(mode="json")


class Writes(Config):
    """Settings of a verb that writes an artefact."""

    out: Path
    """Folder to write; it appears only when it is complete."""
    overwrite: bool = False
    """Replace OUT if it exists already."""


class Compute(Config):
    """Settings of a verb that computes with tensors."""

    sections = {"device": "Model and machine"}

    device: Device = "auto"
    """Where to compute; auto takes CUDA or MPS if present, else the CPU."""
    dtype: DType = "auto"
    """Precision; auto takes bfloat16 only where the machine is faster with it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads (default: as many as there are cores)."""


class OnModel(Compute):
    """Settings of a verb that computes with a model."""

    sections = {"model": "Model and machine"}

    model: str
    """Model folder, or org/name[@revision] of the hub."""
    adapter: Names = ()
    """PEFT adapter to put on the model, a folder or org/name (may be given several times)."""


def sections_of(cls: type[Config]) -> dict[str, str]:
    """Heading of each setting, in the order of the help: a class's own come before those that it inherits."""
    found: dict[str, str] = {}
    for base in cls.__mro__[: cls.__mro__.index(Config)]:
        headings, heading = vars(base).get("sections", {}), "Options"
        for name in (name for name in vars(base).get("__annotations__", {}) if name in cls.model_fields):
            heading = headings.get(name, heading)
            found[name] = heading  # where a class only changes a default, the class that had it first says
    return found


def _user_error(cls: type[Config], error: pydantic.ValidationError, where: str) -> UserError:
    lines: list[str] = []
    unknown: list[tuple[tuple[str, ...], str]] = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if not key:  # a rule about several settings at once
            lines.append(message)
        elif problem["type"] == "extra_forbidden":
            lines.append(f"unknown setting {key!r}")
            *place, name = problem["loc"]
            unknown.append((tuple(part for part in place if isinstance(part, str)), str(name)))
        elif problem["type"] == "model_type":
            lines.append(f"{key}: takes settings, written {{name: value, …}} (got {problem['input']!r})")
        elif problem["type"] == "missing":
            lines.append(f"{key!r} is required")
        else:
            lines.append(f"{key}: {message} (got {problem['input']!r})")
    prefix = f"{where}: " if where else ""
    return UserError(prefix + "; ".join(lines), hint=_hint(cls, unknown))


def _hint(cls: type[Config], unknown: list[tuple[tuple[str, ...], str]]) -> str:
    """What to write instead of the unknown names, each with the sections that lead to it."""
    hints = {name: _meant(cls, place, name) for place, name in unknown}
    said = {name: hint for name, hint in hints.items() if hint}
    if said and len(unknown) > 1:
        return " ".join(f"{name}: {hint}" for name, hint in said.items())
    if said or not unknown:
        return "".join(said.values())
    place, name = unknown[0]
    return did_you_mean(name, section_at(cls, place).model_fields)


def _meant(cls: type[Config], place: tuple[str, ...], name: str) -> str:
    """The same of one: under another name, in another section, or misspelt; empty where nothing is near."""
    known = KNOWN_NAMES.get(name, ())
    if isinstance(known, str):
        return known if "batch_size" in cls.model_fields else ""
    here = section_at(cls, place).model_fields
    for wanted in (name, *known):
        if wanted in here:
            return f"Here it is called {wanted!r}."
    for wanted in (name, *known):
        if wanted in cls.model_fields:
            return f"{wanted!r} stands beside {place[0]!r}, not in it."
        if sections := sections_with(cls, wanted):
            which, first = " and ".join(map(repr, sections)), sections[0]
            return f"It is a setting of {which}: {first}: {{{wanted}: …}} in a file, --{first}.{wanted} … as an option."
    near = nearest(name, here)
    return f"Did you mean {near!r}?" if near else ""


def option_hint(cls: type[Config], option: str) -> str:
    """What to write instead of an unknown option (--lora-r); empty if nothing is known of it."""
    name = option.lstrip("-").replace("-", "_")
    known = KNOWN_NAMES.get(name, ())
    if isinstance(known, str):
        return known if "batch_size" in cls.model_fields else ""
    for wanted in (name, *known):
        sections = [f"{section}." for section in sections_with(cls, wanted)]
        for section in [""] if wanted in cls.model_fields else sections:
            return f"Here it is --{section}{wanted}.".replace("_", "-")
    return ""


def sections_with(cls: type[Config], name: str) -> list[str]:
    """The sections that have a setting of this name."""
    sections = {key: section_of(field.annotation) for key, field in cls.model_fields.items()}
    return [key for key, section in sections.items() if section is not None and name in section.model_fields]


def section_of(annotation: Any) -> type[Config] | None:
    """The settings that a field holds as a section of its own, or as a list of them; None if it holds a value."""
    inner, _ = optional_of(annotation)
    if typing.get_origin(inner) is tuple:
        inner = typing.get_args(inner)[0]
    return inner if isinstance(inner, type) and issubclass(inner, Config) else None


def section_at(cls: type[Config], place: Iterable[str]) -> type[Config]:
    """The settings of a section within others, by the names that lead to it."""
    for name in place:
        field = cls.model_fields.get(name)
        cls = (section_of(field.annotation) if field else None) or cls
    return cls


def parse_override(text: str) -> tuple[list[str], Any]:
    """`train.learning_rate=1e-3` → (["train", "learning_rate"], 0.001); the value is read as YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UserError(f"{text!r} is not an override", hint="Write it as name=value or step.name=value.")
    return key.strip().split("."), parse_scalar(value)


def parse_scalar(text: str) -> Any:
    """One YAML value."""
    return parse_yaml(text, f"the value {text!r}")


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML; raises UserError naming `where`.

    Two differences from YAML 1.1: 1e-3 is a number, and a key that is given twice is an error.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid YAML: {error or type(error).__name__}") from None


def read_yaml(path: Path) -> Any:
    """`parse_yaml` of a file; raises UserError if it cannot be read."""
    try:
        return parse_yaml(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8") from None


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    message = f"the key {key.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def optional_of(annotation: Any) -> tuple[Any, bool]:
    """`X | None` → (X, True); anything else → (itself, False)."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(inner) < len(typing.get_args(annotation)):
            return (inner[0] if len(inner) == 1 else typing.Union[tuple(inner)]), True  # noqa: UP007
    return annotation, False
