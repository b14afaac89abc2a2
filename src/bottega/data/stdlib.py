"""The documentation that every Python installation carries, as documents.

Three parts: the language reference's topics (`pydoc_data.topics`), the sources of the
standard library, and for modules written in C their documentation, put as Python source
so that everything after reads one language. Modules in Python are read as files, never
imported; modules in C can only be asked.

Left out: tests, applications and fixtures (idlelib, turtledemo, lib2to3, ensurepip,
distutils), tables (encodings, pydoc_data, build configuration), and what is not the
standard library's (site-packages).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottega.data.sources import Document, Skipped

LICENSE = "Python Software Foundation License Version 2 (PSF-2.0)"
_FOLDERS_OUT = frozenset(
    {"site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__", "test", "tests", "idlelib"}
    | {"turtledemo", "lib2to3", "ensurepip", "distutils", "encodings", "pydoc_data"}
)
_FILES_OUT = ("_sysconfigdata", "__hello__", "__phello__", "this.py")
# Tests, examples, and what touches the terminal or a display when it is imported.
_EXTENSIONS_OUT = ("_test", "xx", "_xx", "_ctypes_test", "_tkinter", "readline")
# Modules that are one thing under several names: they stand on one side of the split.
_FAMILIES = {
    member: family
    for family, members in {
        "asyncore": ("asynchat", "smtpd"),
        "cProfile": ("lsprof", "profile"),
        "codecs": ("multibytecodec",),
        "collections": ("collections_abc",),
        "curses": ("curses_panel",),
        "gzip": ("bz2", "compression", "lzma", "zlib"),
        "hashlib": ("blake2", "md5", "sha1", "sha256", "sha512", "sha2", "sha3"),
        "html": ("markupbase",),
        "importlib": ("imp", "zipimport"),
        "multiprocessing": ("posixshmem",),
        "os": ("genericpath", "nt", "ntpath", "posix", "posixpath"),
        "pickle": ("compat_pickle",),
        "re": ("sre", "sre_compile", "sre_constants", "sre_parse"),
        "site": ("sitebuiltins",),
        "subprocess": ("bootsubprocess", "posixsubprocess"),
        "threading": ("thread", "threading_local"),
        "time": ("datetime", "strptime", "zoneinfo"),
        "weakref": ("weakrefset",),
        "xml": ("elementtree", "pyexpat"),
    }.items()
    for member in members
}


def source_files() -> dict[str, Path]:
    """Relative name → path of the standard library's sources that are used, in order of name."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        folders = name.parts[:-1]
        if any(f in _FOLDERS_OUT or f.startswith("config-") or f.endswith("_test") for f in folders):
            continue
        if not name.name.startswith(_FILES_OUT) and path.is_file():
            found[name.as_posix()] = path
    return dict(sorted(found.items()))


def extension_modules() -> list[str]:
    """Names of the standard library's modules that are written in C and present here."""
    dynamic = Path(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})) / "lib-dynload"
    names = {*sys.builtin_module_names, *(path.name.partition(".")[0] for path in dynamic.glob("*.so"))}
    return sorted(name for name in names if not name.startswith(_EXTENSIONS_OUT))


def read_python(skipped: Skipped) -> Iterator[Document]:
    """All documents: ids are `topics/NAME`, `lib/PATH.py` and `c/MODULE.py`."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield Document(f"topics/{name}", text.strip() + "\n", "python topics")
    for name, path in source_files().items():
        try:
            text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError):
            skipped.add("not readable as UTF-8", name)
            continue
        if text.strip():
            yield Document(f"lib/{name}", text, "python source")
    for name in extension_modules():
        text = describe_extension(name)
        if text:
            yield Document(f"c/{name}.py", text, "python extension modules")
        else:
            skipped.add("module in C without documentation here", name)


def module_name(id_: str) -> str | None:
    """'lib/json/__init__.py' → 'json'; None for a topic."""
    kind, _, path = id_.partition("/")
    if kind == "topics":
        return None
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def family(id_: str) -> str:
    """What a document is split with: its top-level module or package, or the topic itself.

    `_x`, `_pyx`, `_py_x` and `x` are one family; so are a few that share code or text.
    """
    name = module_name(id_)
    if name is None:
        return id_
    top = name.partition(".")[0]
    top = top.removeprefix("_py").lstrip("_") or top
    return _FAMILIES.get(top, top)


def describe_extension(name: str) -> str:
    """The documentation of a module in C, as Python source; empty where it is absent or has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
        except ImportError:
            return ""
        # A module in Python by that name stands elsewhere; only what C wrote is described.
        members = [(key, value) for key, value in sorted(vars(module).items()) if not key.startswith("_")]
        parts = [_member(key, value, name, "") for key, value in members]
    body = "\n\n".join(part for part in parts if part)
    if not body:
        return ""
    return (_docstring(module.__doc__, "") + "\n\n" + body).strip() + "\n"


def _member(key: str, value: Any, module: str, indent: str) -> str:
    if isinstance(value, type):
        # A type says where it is public: `_functools.partial` says functools. Other modules' types stand there.
        is_own = value.__module__.lstrip("_") == module.lstrip("_") and value.__name__ == key
        return _type(key, value, module, indent) if is_own else ""
    if isinstance(value, types.ModuleType) or not inspect.getdoc(value):
        return ""
    if isinstance(value, staticmethod):
        return _function(key, value.__func__, indent, "@staticmethod")
    if isinstance(value, types.ClassMethodDescriptorType):
        return _function(key, value, indent, "@classmethod")
    if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType):
        return _function(key, value, indent)
    if isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType | property):
        doc = _docstring(value.__doc__, indent + "    ")
        return f"{indent}@property\n{indent}def {key}(self):\n{doc}" if doc else ""
    return ""


def _type(key: str, value: type, module: str, indent: str) -> str:
    bases = ", ".join(base.__qualname__ for base in value.__bases__ if base is not object)
    members = [item for item in sorted(vars(value).items()) if not item[0].startswith("_")]
    parts = [_member(name, member, module, indent + "    ") for name, member in members]
    inner = [part for part in [_docstring(value.__doc__, indent + "    "), *parts] if part]
    if not inner:
        return ""
    return f"{indent}class {key}" + (f"({bases})" if bases else "") + ":\n" + "\n\n".join(inner)


def _function(key: str, value: Any, indent: str, decorator: str = "") -> str:
    """A function by signature and docstring; without a known signature, as a name with its docstring."""
    try:
        signature = str(inspect.signature(value))
        ast.parse(f"def f{signature}: pass")
    except Exception:  # a signature is evaluated text from C, and may raise anything
        return f"{indent}{key} = ...\n" + _docstring(value.__doc__, indent)
    above = f"{indent}{decorator}\n" if decorator else ""
    body = _docstring(value.__doc__, indent + "    ") or f"{indent}    ..."
    return f"{above}{indent}def {key}{signature}:\n{body}"


def _docstring(doc: Any, indent: str) -> str:
    if not isinstance(doc, str) or not doc.strip():
        return ""
    lines = inspect.cleandoc(doc).replace("\\", "\\\\").replace('"""', '\\"\\"\\"').split("\n")
    text = "\n".join(f"{indent}{line}".rstrip() for line in lines).strip()
    ending = f"\n{indent}" if len(lines) > 1 or text.endswith('"') else ""
    return f'{indent}"""{text}{ending}"""'
