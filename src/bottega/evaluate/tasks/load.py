"""Finding and reading task files: shipped ones by name, others by path; `include`, groups, `!function`, `for_each`.

Source: lm-evaluation-harness's task files. Ours add one key: `for_each: {subject: [a, b]}` makes a task (or a group) of
each value, with `{subject}` replaced in every text, where lm-evaluation-harness has one file for each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bottega.core.errors import UserError, did_you_mean
from bottega.evaluate.tasks.functions import known_function
from bottega.evaluate.tasks.schema import Group, TaskConfig, parse_task

DEFINITIONS = Path(__file__).parent / "definitions"
MOST_INCLUDES = 16
MOST_BYTES, MOST_VALUES = 4 << 20, 200_000  # of a task file: aliases may make many values of few bytes


@dataclass
class Loaded:
    """Tasks by name in the order asked for, and the groups they came under."""

    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, other: Loaded) -> None:
        """Add what was loaded elsewhere; raises UserError where one name stands for two things."""
        for name, entry in other.entries.items():
            self.require_same(name, entry)
        self.tasks |= other.tasks
        self.groups |= other.groups
        self.entries |= other.entries

    def require_same(self, name: str, entry: Entry) -> None:
        """Raise UserError if another entry has this name."""
        if self.entries.get(name, entry) != entry:
            first = self.entries[name].file
            where = f"of {entry.file}" if first == entry.file else f"of {first} and of {entry.file}"
            raise UserError(
                f"there are two different tasks called {name!r}, {where}", hint="Give one a task_alias or another name."
            )


@dataclass(frozen=True)
class FunctionReference:
    """`!function module.name` in a file of `folder`."""

    text: str
    folder: Path


@dataclass(frozen=True)
class Entry:
    """One task or group of a file, not parsed yet."""

    data: dict[str, Any]
    file: Path
    code: str = ""  # the name under which its functions are known, where it has another

    @property
    def name(self) -> str:
        """Its name; a group of lm-evaluation-harness has `group`, a task `task`."""
        return str(self.data.get("group") or self.data.get("task") or "")

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        tag = self.data.get("tag") or []
        return [tag] if isinstance(tag, str) else list(tag)


def load_tasks(names: Sequence[str], *, allow_code: bool = False) -> Loaded:
    """The tasks of these names, files, groups, tags or patterns (`mmlu_*`).

    Raises UserError for a name that is not there, or a file that is no task.
    """
    loader = _Loader(allow_code)
    for name in names:
        loader.add(name)
    return loader.loaded


def shipped_names() -> list[str]:
    """Names of the tasks and groups that come with Bottega."""
    return sorted(_shipped())


GROUP_METRIC_KEYS = {"metric", "aggregation", "weight_by_size", "filter_list", "higher_is_better"}


class _Loader:
    def __init__(self, allow_code: bool) -> None:
        self.allow_code = allow_code
        self.loaded = Loaded()
        self.known: dict[str, Entry] = dict(_shipped())
        self.above: list[str] = []  # the groups that are being loaded

    def add(self, name: str) -> list[str]:
        """Load what `name` stands for; the names of its tasks and groups."""
        if name.endswith((".yaml", ".yml")):
            entries = read_file(Path(name))
            self.known |= {entry.name: entry for entry in entries} | _neighbours(Path(name))
            return [self._load(entry) for entry in entries]
        if name in self.known:
            return [self._load(self.known[name])]
        found = [entry for entry in self.known.values() if name in entry.tags]
        if not found and any(sign in name for sign in "*?["):
            found = [entry for key, entry in sorted(self.known.items()) if fnmatchcase(key, name)]
        if not found:
            hint = did_you_mean(name, self.known)
            raise UserError(
                f"there is no task {name!r}",
                hint=hint
                if "Known" not in hint
                else "See bottega tasks; a task file is named by its path, ending in .yaml.",
            )
        return [self._load(entry) for entry in found]

    def _load(self, entry: Entry) -> str:
        name = entry.name
        if not name:
            raise UserError(f"{entry.file} names no task")
        self.loaded.require_same(name, entry)
        if name in self.loaded.entries:
            return name
        self.loaded.entries[name] = entry
        if isinstance(entry.data.get("task"), list):
            self._load_group(entry)
        else:
            data = _resolve(entry.data, entry, self.allow_code)
            self.loaded.tasks[name] = parse_task(data, f"{entry.file.name}, task {name}")
        return name

    def _load_group(self, entry: Entry) -> None:
        members: list[str] = []
        self.above.append(entry.name)
        for member in entry.data["task"]:
            if isinstance(member, str):
                members += self.add(member)
                if loop := set(members) & set(self.above):
                    raise UserError(f"{entry.file}: group {min(loop)} holds itself")
                continue
            if not isinstance(member, dict):
                raise UserError(f"{entry.file}: a member of a group is a name or a table, not {member!r}")
            base = self.known.get(str(member.get("task")))
            inherited = base.data if base is not None and not isinstance(member.get("task"), list) else {}
            alias = {"task": member["task_alias"]} if inherited and "task_alias" in member else {}
            code = base.name if alias and base is not None else ""
            members.append(self._load(Entry({**inherited, **member, **alias}, (base or entry).file, code)))
        self.above.pop()
        self.loaded.groups[entry.name] = Group(
            entry.name, str(entry.data.get("group_alias") or entry.name), members, _group_metrics(entry)
        )


def _group_metrics(entry: Entry) -> list[tuple[str, list[str], bool]]:
    found = []
    given = entry.data.get("aggregate_metric_list") or []
    for metric in [given] if isinstance(given, dict) else given:
        if not isinstance(metric, dict) or "metric" not in metric:
            raise UserError(f"{entry.file}: aggregate_metric_list is a list of tables with metric, not {metric!r}")
        if unknown := sorted(set(metric) - GROUP_METRIC_KEYS):
            raise UserError(
                f"{entry.file}: aggregate_metric_list: unknown key {unknown[0]!r}",
                hint=did_you_mean(unknown[0], GROUP_METRIC_KEYS),
            )
        if metric.get("aggregation", "mean") != "mean":
            raise UserError(f"{entry.file}: groups are averaged by mean, not {metric['aggregation']!r}")
        filters = metric.get("filter_list", "none")
        names = [filters] if isinstance(filters, str) else list(filters)
        found.append((str(metric["metric"]), names, bool(metric.get("weight_by_size", True))))
    return found


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Entry]:
    entries = (entry for file in sorted(DEFINITIONS.rglob("*.yaml")) for entry in read_file(file))
    return {entry.name: entry for entry in entries if entry.name}


def _neighbours(file: Path) -> dict[str, Entry]:
    """The other tasks of a file's folder, which its groups may name; files that are none are passed over."""
    found: dict[str, Entry] = {}
    for other in sorted({*file.parent.glob("*.yaml"), *file.parent.glob("*.yml")} - {file}):
        try:
            found |= {entry.name: entry for entry in read_file(other) if entry.name}
        except UserError:
            continue
    return found


def read_file(file: Path) -> list[Entry]:
    """The tasks and groups of a file; raises UserError if it cannot be read, or is none."""
    data = _read(file, 0)
    each = data.pop("for_each", None)
    if each is None:
        return [Entry(data, file)]
    if not isinstance(each, dict) or len(each) != 1 or not isinstance(next(iter(each.values())), list):
        raise UserError(f"{file}: for_each is one name with a list of values")
    ((name, values),) = each.items()
    return [Entry(_substituted(data, "{" + name + "}", str(value)), file) for value in values]


def _read(file: Path, depth: int) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"there is no task file {file}")
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file} is larger than {MOST_BYTES >> 20} MiB")
        data = yaml.load(file.read_text("utf-8"), _yaml_loader(file.parent))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{file} is not a task: it holds no table")
    _require_size(data, file)
    included = data.pop("include", None)
    if included is None:
        return data
    if depth == MOST_INCLUDES:
        raise UserError(f"{file}: files include each other")
    base: dict[str, Any] = {}
    names = [included] if isinstance(included, str) else included
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: include is a file or a list of files, not {included!r}")
    for name in dict.fromkeys(names):
        base |= _read(file.parent / name, depth + 1)
    return base | data


def _require_size(data: Any, file: Path) -> None:
    """Raise UserError if it has more values than a task needs, those counted again that aliases repeat."""
    open_, count = [data], 0
    while open_:
        value = open_.pop()
        count += 1
        if count + len(open_) > MOST_VALUES:
            raise UserError(f"{file} holds more than {MOST_VALUES} values")
        open_ += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _yaml_loader(folder: Path) -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> FunctionReference:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "!function takes a name", node.start_mark)
        return FunctionReference(str(loader.construct_scalar(node)), folder)

    Loader.add_constructor("!function", function)
    return Loader


def _substituted(value: Any, sign: str, text: str) -> Any:
    if isinstance(value, str):
        return value.replace(sign, text)
    if isinstance(value, list):
        return [_substituted(each, sign, text) for each in value]
    if isinstance(value, dict):
        return {key: _substituted(each, sign, text) for key, each in value.items()}
    return value


def _resolve(value: Any, entry: Entry, allow_code: bool) -> Any:
    """`value` with functions in place of their references."""
    if isinstance(value, FunctionReference):
        return _function(value, entry, allow_code)
    if isinstance(value, list):
        return [_resolve(each, entry, allow_code) for each in value]
    if isinstance(value, dict):
        return {key: _resolve(each, entry, allow_code) for key, each in value.items()}
    return value


def _function(reference: FunctionReference, entry: Entry, allow_code: bool) -> Callable[..., Any]:
    module_name, _, name = reference.text.rpartition(".")
    path = reference.folder / (module_name.replace(".", "/") + ".py")
    known = known_function(entry.code or entry.name, str(entry.data.get("dataset_path", "")), reference.text)
    if known is not None and not (allow_code and path.is_file()):
        return known
    where = f"{entry.file}: !function {reference.text}"
    if not allow_code:
        raise UserError(
            f"{where} is code of the task file, which is not run",
            hint="Read it; if you trust it, give --allow-code. The task then runs in this process, with your rights.",
        )
    spec = importlib.util.spec_from_file_location(f"bottega_task_code.{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(f"{where}: there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return getattr(module, name)
    except Exception as error:  # it is the task's code: any failure is its own
        raise UserError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from None


def expand(names: Iterable[str], loaded: Loaded) -> list[str]:
    """The names of the tasks under these names of tasks and groups, each once."""
    found: dict[str, None] = {}
    for name in names:
        group = loaded.groups.get(name)
        found |= dict.fromkeys(expand(group.members, loaded) if group else [name])
    return list(found)
