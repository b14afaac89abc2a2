"""What a module of the standard library offers: its public names with docstrings and parameters.

Read from the syntax tree, without importing the module. A second pass over all modules
finds the name under which people know a symbol: `heappush` is written in `_heapq`, but
lives in `heapq`, because that module imports it from there.
"""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Noun = Literal["function", "class", "method", "property", "module"]
# Names by which people know them.
_KNOWN_AS = {"posixpath": "os.path"}


@dataclass(frozen=True)
class Symbol:
    """One documented name. `path` is inside its module ('deque.append'); '' is the module itself.

    `parameters` without self; None where the signature is not known. `lines` are those of
    the definition and of the docstring.
    """

    module: str
    path: str
    noun: Noun
    doc: str
    parameters: tuple[str, ...] | None
    lines: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The full dotted name; of built-in ones without the module."""
        parts = [self.module if self.module != "builtins" or not self.path else "", self.path]
        return ".".join(part for part in parts if part)


@dataclass
class Module:
    """One module's symbols, and what it takes from where."""

    name: str
    symbols: list[Symbol] = field(default_factory=list)
    exported: frozenset[str] | None = None
    defined: set[str] = field(default_factory=set)
    imported: list[tuple[str, str]] = field(default_factory=list)
    """(module, name or '*') of each `from module import name`."""


def read_module(name: str, tree: ast.Module, *, is_package: bool) -> Module:
    """The public, documented symbols of one module."""
    module = Module(name)
    doc = ast.get_docstring(tree)
    if doc:
        node = tree.body[0]
        last = node.end_lineno or node.lineno
        module.symbols.append(Symbol(name, "", "module", doc, None, (node.lineno, last, node.lineno, last)))
    package = name if is_package else name.rpartition(".")[0]
    for node in _statements(tree.body):
        if isinstance(node, ast.ImportFrom):
            source = _absolute(package, node)
            module.imported += [(source, alias.name) for alias in node.names if alias.asname in (None, alias.name)]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            elements = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else []
            values = [element.value for element in elements if isinstance(element, ast.Constant)]
            # A list that is computed is not known here: then every public name counts.
            module.exported = frozenset(value for value in values if isinstance(value, str)) or None
    for symbol in _symbols(name, "", tree.body):
        if "." not in symbol.path:
            module.defined.add(symbol.path)
        if not any(part.startswith("_") for part in symbol.path.split(".")):
            module.symbols.append(symbol)
    return module


def published(modules: Sequence[Module]) -> list[tuple[Symbol, Module]]:
    """All symbols under the names people know, each with the module that defines it.

    Those without such a name are left out, and so are second definitions.
    """
    by_name = {module.name: module for module in modules}
    homes = _homes(modules, by_name)
    found: dict[str, tuple[Symbol, Module]] = {}
    for module in modules:
        public = not any(part.startswith("_") for part in module.name.split("."))
        for symbol in module.symbols:
            top = symbol.path.partition(".")[0]
            home = homes.get((module.name, top)) if top else None
            if home is None and (not public or (module.exported is not None and top and top not in module.exported)):
                continue
            known = replace(symbol, module=_KNOWN_AS.get(home or module.name, home or module.name))
            found.setdefault(known.name, (known, module))
    return list(found.values())


def _homes(modules: Sequence[Module], by_name: Mapping[str, Module]) -> dict[tuple[str, str], str]:
    """(module that defines, name) → public module that offers it instead."""
    takers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for module in modules:
        for source, name in module.imported:
            takers[source].append((module.name, name))
    homes = {}
    for module in modules:
        private = any(part.startswith("_") for part in module.name.split("."))
        for taker, taken in takers.get(module.name, ()):
            if any(part.startswith("_") for part in taker.split(".")) or taker not in by_name:
                continue
            # A package offers what its own parts define; a public module what a private one does for it.
            own_part = module.name.startswith(taker + ".")
            for_it = private and module.name.lstrip("_").removeprefix("py") in (taker, taker.removeprefix("py"))
            if not (own_part or for_it or (module.name, taker) in (("posix", "os"), ("genericpath", "posixpath"))):
                continue
            names = _offered(module) if taken == "*" else {taken} & module.defined
            for name in names:
                homes.setdefault((module.name, name), taker)
    return homes


def _offered(module: Module) -> set[str]:
    if module.exported is not None:
        return module.defined & module.exported
    return {name for name in module.defined if not name.startswith("_")}


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module or class, those under if and try included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(s for h in node.handlers for s in h.body), *node.orelse])


def _symbols(module: str, prefix: str, body: Sequence[ast.stmt]) -> Iterator[Symbol]:
    previous: ast.stmt | None = None
    for node in _statements(body):
        if isinstance(node, ast.ClassDef):
            yield from _class(module, prefix, node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
            if not decorators & {"setter", "deleter", "overload"}:
                noun: Noun = "method" if prefix else "function"
                if prefix and decorators & {"property", "cached_property"}:
                    noun = "property"
                names = None if noun == "property" else _parameters(node, bool(prefix), "staticmethod" in decorators)
                yield from _documented(module, prefix + node.name, noun, node, names)
        elif isinstance(previous, ast.Assign) and isinstance(previous.targets[0], ast.Name):
            # A name set to ..., then a string: how `stdlib` writes down a function of unknown signature.
            doc = _text(node)
            if doc and isinstance(previous.value, ast.Constant) and previous.value.value is ...:
                last = node.end_lineno or node.lineno
                lines = (previous.lineno, last, node.lineno, last)
                path = prefix + previous.targets[0].id
                yield Symbol(module, path, "method" if prefix else "function", doc, None, lines)
        previous = node


def _class(module: str, prefix: str, node: ast.ClassDef) -> Iterator[Symbol]:
    init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
    names = _parameters(init, True, False) if init else None
    yield from _documented(module, prefix + node.name, "class", node, names)
    yield from _symbols(module, f"{prefix}{node.name}.", node.body)


def _documented(
    module: str,
    path: str,
    noun: Noun,
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef,
    parameters: tuple[str, ...] | None,
) -> Iterator[Symbol]:
    doc = ast.get_docstring(node)
    first = node.body[0]
    lines = (node.lineno, node.end_lineno or node.lineno, first.lineno, first.end_lineno or first.lineno)
    if doc or parameters:
        yield Symbol(module, path, noun, doc or "", parameters, lines)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool, is_static: bool) -> tuple[str, ...]:
    a = node.args
    names = [argument.arg for argument in [*a.posonlyargs, *a.args]]
    # A decorator may turn a function into a method elsewhere (`typing.ClassVar`).
    if names and ((is_method and not is_static) or names[0] == "self"):
        names = names[1:]
    names += [f"*{a.vararg.arg}"] if a.vararg else []
    names += [argument.arg for argument in a.kwonlyargs]
    names += [f"**{a.kwarg.arg}"] if a.kwarg else []
    return tuple(names)


def _text(node: ast.stmt) -> str:
    """The string that a statement consists of, cleaned as a docstring; else empty."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""
