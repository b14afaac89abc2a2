"""What the file of a lab or a view says about itself, read without running it: they import torch, pages do not.

Title and purpose are the docstring, the budget is `BUDGET`, the settings are the class `Params`: annotated names with
defaults (`Field(default=…, ge=…, le=…)`), each with its own docstring.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottega.core.errors import BottegaError

_LIMITS = ("ge", "gt", "le", "lt", "max_length", "min_length", "pattern")


@dataclass(frozen=True)
class Setting:
    """One setting of a lab. `kind` is int, float, str, bool or choice; `limits` are those of pydantic's Field."""

    name: str
    kind: str
    default: Any
    about: str = ""
    choices: tuple[Any, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabFacts:
    """A lab's title, what it shows, its budget in CPU-seconds (a view has none), and its settings."""

    title: str
    about: str
    budget: float
    settings: tuple[Setting, ...]


def read_facts(path: Path, *, has_budget: bool = True) -> LabFacts:
    """Read the file; raises BottegaError if it is no lab (or, without `has_budget`, no Python)."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except SyntaxError as error:
        raise BottegaError(f"{path}:{error.lineno}: {error.msg}") from None
    title, _, about = (ast.get_docstring(tree) or path.stem).partition("\n")
    budget, settings = None if has_budget else 0, ()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "BUDGET":
            budget = _literal(node.value)
        if isinstance(node, ast.ClassDef) and node.name == "Params":
            settings = _settings(node)
    if not isinstance(budget, int | float):
        raise BottegaError(f"{path}: a lab says BUDGET = CPU-seconds, as a number")
    return LabFacts(title.strip().rstrip("."), about.strip(), float(budget), settings)


def models_of(path: Path) -> tuple[str, ...]:
    """The stages of the course's model that a lab asks for: its calls `companion("STAGE")`."""
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "companion":
            stage = _literal(node.args[0]) if node.args else "pretrained"
            if isinstance(stage, str):
                found[stage] = None
    return tuple(found)


def _settings(node: ast.ClassDef) -> tuple[Setting, ...]:
    found = []
    for index, line in enumerate(node.body):
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        following = node.body[index + 1] if index + 1 < len(node.body) else None
        about = _literal(following.value) if isinstance(following, ast.Expr) else ""
        default, limits = _default(line.value)
        kind, choices = _kind(line.annotation)
        found.append(Setting(line.target.id, kind, default, str(about or ""), choices, limits))
    return tuple(found)


def _default(value: ast.expr | None) -> tuple[Any, dict[str, Any]]:
    if not isinstance(value, ast.Call):
        return _literal(value), {}
    given = {word.arg: _literal(word.value) for word in value.keywords}
    default = _literal(value.args[0]) if value.args else given.get("default")
    return default, {name: given[name] for name in _LIMITS if name in given}


def _kind(annotation: ast.expr) -> tuple[str, tuple[Any, ...]]:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        choices = _literal(annotation.slice)
        return "choice", choices if isinstance(choices, tuple) else (choices,)
    name = ast.unparse(annotation).removesuffix(" | None")
    return (name if name in ("int", "float", "bool") else "str"), ()


def _literal(node: ast.expr | None) -> Any:
    """The value of a literal; None where it would have to be computed."""
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
