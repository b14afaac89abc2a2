"""Recipes: YAML files of one step, or a chain in which a step names earlier ones.

One step is a verb's own file with the verb named in it (`verb: train`, then its settings).
A chain:

```yaml
name: example
parameters: {size: small}
steps:
  corpus: {verb: data collect, source: python}
  tokenizer: {verb: tokenizer train, data: "${corpus}", size: "${size}"}
```

`${name}` is a parameter, or the folder that an earlier step writes; `${here}` is the recipe's own
folder. A step's folder is `WORKSPACE/RECIPE/STEP` unless its `out` says otherwise. A chain is
planned as a whole before anything runs; a step that is done already (same verb, settings and
content of inputs) is skipped.

A parameter's default may be a step, as in `parameters: {model: "${base}"}`. What changes once
something of the user's own is given in its place, in the file or as --model, stands under
`when_given: {model: {leave_out: [base], parameters: {size: base}}}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from bottega.core.atomic import clear_leftovers
from bottega.core.errors import UserError, did_you_mean
from bottega.core.plan import Plan, Specs
from bottega.core.progress import Reporter
from bottega.core.record import has_record
from bottega.core.schema import Config, parse_override, parse_yaml, read_yaml
from bottega.core.verb import Result, Verb, execute, find_verb, is_done, overwrites
from bottega.core.workspace import open_workspace, writing

REFERENCE = re.compile(r"\$\{([^}]*)\}")
HERE = "here"
EXAMPLE = re.compile(r"\b(examples/[\w.-]*\w)")
KEYS = {"name", "description", "parameters", "steps", "patience_seconds", "smaller", "report", "when_given"}


@dataclass(frozen=True)
class Recipe:
    """A recipe as written.

    From an estimate of `patience_seconds` on, a smaller value of a parameter is suggested: `smaller` maps
    its name to its values, the smallest first. `report` holds the title and the words of the report, `folder`
    is where the recipe lies.
    """

    name: str
    steps: dict[str, dict[str, Any]]
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    patience_seconds: float | None = None
    smaller: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    when_given: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder: Path | None = None


@dataclass
class Step:
    """One step of a run: its plan, and whether its result was there already.

    `replaces` says that it is not done, and what stands in its place is another finished result: "yes",
    or "maybe" if that depends on how its inputs come out.
    """

    name: str
    verb: Verb
    plan: Plan
    done: bool = False
    replaces: Literal["no", "maybe", "yes"] = "no"
    result: Result | None = None


def shipped_folder() -> Path:
    """Where the recipes that come with the package lie, and the examples that they use."""
    return Path(str(resources.files("bottega") / "recipes"))


def examples_of(text: str) -> list[str]:
    """The files beside a recipe that its text names, relative to it, each once."""
    return sorted(set(EXAMPLE.findall(text)))


def shipped_recipes() -> dict[str, str]:
    """Name → text of the recipes that come with the package."""
    folder = shipped_folder()
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text("utf-8") for file in sorted(files, key=lambda f: f.name)}


def load_recipe(name: str) -> Recipe:
    """A recipe by path or by the name of a shipped one; raises UserError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return replace(recipe_from(read_yaml(path), str(path)), folder=path.parent)
    shipped = shipped_recipes()
    if name not in shipped:
        raise UserError(f"no recipe {name!r}", hint=did_you_mean(name, shipped))
    return replace(parse_recipe(shipped[name], name), folder=shipped_folder())


def parse_recipe(text: str, where: str) -> Recipe:
    """A recipe from YAML text; raises UserError naming what is wrong in `where`."""
    return recipe_from(parse_yaml(text, where), where)


def recipe_from(data: Any, where: str) -> Recipe:
    """A recipe from plain data; a mapping with `verb` and without `steps` is a recipe of that one step."""
    if isinstance(data, dict) and isinstance(data.get("verb"), str) and "steps" not in data:
        data = {"steps": {data["verb"].replace(" ", "-"): data}}
    if not isinstance(data, dict) or not isinstance(data.get("steps"), dict) or not data["steps"]:
        hint = "A recipe has `steps`, a mapping of step names to settings; or it is one step, with its `verb`."
        raise UserError(f"{where} is not a recipe", hint=hint)
    for key in data:
        if key not in KEYS:
            raise UserError(f"{where}: unknown key {key!r}", hint=did_you_mean(str(key), KEYS))
    parameters = _mapping(data, "parameters", where)
    for step, settings in data["steps"].items():
        _check_name(step, f"step {step!r}", where)
        if not isinstance(settings, dict) or not isinstance(settings.get("verb"), str):
            raise UserError(f"{where}: step {step!r} names no verb")
        if step in parameters:
            raise UserError(f"{where}: {step!r} is a step and a parameter", hint="Rename one of them.")
    name = str(data.get("name") or Path(where).stem)
    _check_name(name, f"the name {name!r}", where)
    patience = data.get("patience_seconds")
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, (int, float))):
        raise UserError(f"{where}: `patience_seconds` is not a number (got {patience!r})")
    report = _mapping(data, "report", where)
    _mapping(report, "headings", f"{where}, report")
    if not isinstance(report.get("limits") or [], list):
        raise UserError(f"{where}, report: `limits` is not a list of sentences")
    recipe = Recipe(
        name,
        data["steps"],
        str(data.get("description") or "").strip(),
        parameters,
        patience,
        _smaller(data, parameters, where),
        report,
        _when_given(data, parameters, where),
    )
    return _as_given(recipe)


def _when_given(data: dict[str, Any], parameters: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    rules = _mapping(data, "when_given", where)
    for name, rule in rules.items():
        place = f"{where}, when_given: {name}"
        if name not in parameters or not isinstance(rule, dict) or rule.keys() - {"leave_out", "parameters"}:
            hint = "Write `when_given: {PARAMETER: {leave_out: [steps], parameters: {NAME: value}}}`."
            raise UserError(f"{place} is not a rule for a parameter", hint=hint)
        for kind, known in (("leave_out", data["steps"]), ("parameters", parameters)):
            for wrong in [each for each in rule.get(kind) or () if each not in known]:
                raise UserError(f"{place}, {kind}: there is no {wrong!r}", hint=did_you_mean(str(wrong), known))
    return rules


def _smaller(data: dict[str, Any], parameters: dict[str, Any], where: str) -> dict[str, Any]:
    smaller = _mapping(data, "smaller", where)
    for name, values in smaller.items():
        if name not in parameters or not isinstance(values, list):
            hint = "Write `smaller: {PARAMETER: [values, the smallest first]}`."
            raise UserError(f"{where}, smaller: {name!r} is not a parameter with a list of values", hint=hint)
    return smaller


def _mapping(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{where}: `{key}` is not a mapping of names to values")
    return value


def _check_name(name: Any, what: str, where: str) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"{where}: {what} is not a plain name", hint="Use letters, digits, - and _.")


def with_parameters(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some parameters given, and what follows from that; raises UserError for a name it does not have.
    """
    for name in values:
        if name not in recipe.parameters:
            hint = did_you_mean(name, recipe.parameters) or f"Write STEP.{name}=…; steps: {', '.join(recipe.steps)}."
            raise UserError(f"recipe {recipe.name} has no parameter {name!r}", hint=hint)
    return _as_given(replace(recipe, parameters={**recipe.parameters, **values}), values)


def _as_given(recipe: Recipe, chosen: Iterable[str] = ()) -> Recipe:
    """What `when_given` says of each parameter that is no step any more; `chosen` parameters stay what they are."""
    for name, rule in recipe.when_given.items():
        if REFERENCE.search(str(recipe.parameters[name])):
            continue
        implied = {key: value for key, value in rule.get("parameters", {}).items() if key not in chosen}
        recipe = replace(
            recipe,
            parameters={**recipe.parameters, **implied},
            steps={step: settings for step, settings in recipe.steps.items() if step not in rule.get("leave_out", ())},
            when_given={key: other for key, other in recipe.when_given.items() if key != name},
        )
    return recipe


def with_setting(recipe: Recipe, registry: Mapping[str, Verb], name: str, value: Any) -> Recipe:
    """Give a setting to every step whose verb has it; raises UserError if none has."""
    steps = {step: dict(settings) for step, settings in recipe.steps.items()}
    having = [s for s in steps.values() if name in find_verb(registry, s["verb"]).config_type().model_fields]
    if not having:
        raise UserError(f"no step of recipe {recipe.name} has the setting {name!r}")
    for settings in having:
        settings[name] = value
    return replace(recipe, steps=steps)


def next_smaller(recipe: Recipe) -> dict[str, Any]:
    """The parameter and value with which the recipe does less than now; empty if it knows none."""
    for name, values in recipe.smaller.items():
        place = values.index(recipe.parameters[name]) if recipe.parameters[name] in values else 0
        if place > 0:
            return {name: values[place - 1]}
    return {}


def with_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Apply `step.setting=value`, `verb.setting=value` (every step of that verb) and `parameter=value`.

    `step.section.setting=value` is one setting within a section; the others in it stay.
    """
    parsed = [(text, *parse_override(text)) for text in overrides]
    recipe = with_parameters(recipe, {keys[0]: value for _, keys, value in parsed if len(keys) == 1})
    steps = {name: dict(settings) for name, settings in recipe.steps.items()}
    for text, keys, value in parsed:
        if len(keys) == 1:
            continue
        chosen = [name for name in steps if name == keys[0]] or [
            name for name, settings in steps.items() if settings["verb"] == keys[0].replace("_", " ")
        ]
        if not chosen:
            known = [*steps, *(settings["verb"].replace(" ", "_") for settings in steps.values())]
            raise UserError(f"no step for the override {text!r}", hint=did_you_mean(keys[0], known))
        if keys[1] == "verb":
            raise UserError(f"{text!r}: the verb of a step cannot be overridden", hint="Copy the recipe and change it.")
        for name in chosen:
            steps[name] = _with_inner(steps[name], keys[1:], value)
    return replace(recipe, steps=steps)


def _with_inner(settings: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """The settings with one of them changed, however deep in sections it stands."""
    if len(keys) > 1:
        held = settings.get(keys[0])
        value = _with_inner(held if isinstance(held, dict) else {}, keys[1:], value)
    return {**settings, keys[0]: value}


class Chain:
    """A recipe bound to a workspace: it plans all steps, then runs those that are not done."""

    def __init__(self, recipe: Recipe, workspace: Path, registry: Mapping[str, Verb]) -> None:
        self.recipe, self.workspace, self.registry = recipe, workspace, registry
        self.folder = workspace / recipe.name
        self._outs: dict[str, Path | None] = {}

    def plan(self) -> list[Step]:
        """The plan of every step, made from what is on disk and what earlier steps will make."""
        specs, steps, changed, written = Specs(), [], set[Path](), 0
        for name in self.recipe.steps:
            step = self._plan_step(name, specs, written)
            out = step.plan.out.resolve() if step.plan.out else None
            if out is not None:
                _require_own_place(name, out, steps)
            inputs = [path.resolve() for path in step.plan.inputs.values()]
            inputs_ready = not any(changed & {path, *path.parents} for path in inputs)
            step.done = inputs_ready and is_done(step.verb, step.plan)
            if not step.done and step.plan.out is not None:
                if has_record(step.plan.out):
                    step.replaces = "yes" if inputs_ready else "maybe"
                changed.add(step.plan.out.resolve())
                written += step.plan.cost.bytes_written
                if step.plan.produces is not None:
                    specs.predict(step.plan.out, step.plan.produces)
            steps.append(step)
        return steps

    def run(
        self,
        reporter: Reporter,
        on_step: Callable[[Step, int, int], None] | None = None,
        planned: Sequence[Step] | None = None,
    ) -> list[Step]:
        """Run what is not done yet; every check of each such step has passed before the first one runs.

        `planned` is what `plan` gave a moment ago, if it has been asked already.
        """
        planned = self.plan() if planned is None else planned
        require_all(planned)
        open_workspace(self.workspace)
        with writing(self.workspace):
            finished = []
            for number, step in enumerate(planned, start=1):
                # What was to be done may turn out done once its inputs are there; the rest may have changed since.
                if not (step.done and is_done(step.verb, step.plan)):
                    step = self._plan_step(step.name, Specs())
                    step.done = is_done(step.verb, step.plan)
                if on_step:
                    on_step(step, number, len(planned))
                if not step.done:
                    step.result = execute(step.verb, step.plan, reporter, overwrite=self._may_replace(step.plan.config))
                elif step.plan.out is not None:
                    clear_leftovers(step.plan.out)
                finished.append(step)
        return finished

    def _may_replace(self, config: Config) -> bool:
        """A recipe owns the folders below its own; elsewhere the step must say `overwrite`."""
        out: Path | None = getattr(config, "out", None)
        return overwrites(config) or (out is not None and self.folder.resolve() in out.resolve().parents)

    def _plan_step(self, name: str, specs: Specs, written: int = 0) -> Step:
        settings = dict(self.recipe.steps[name])
        verb = find_verb(self.registry, settings.pop("verb"))
        where = f"step {name}"
        if not verb.step:
            raise UserError(f"{where}: {verb.name} cannot be a step of a recipe")
        values = {key: self._resolve(value, name) for key, value in settings.items()}
        values = {key: value for key, value in values.items() if value is not None}
        config_type: type[Config] = verb.config_type()
        if "out" in config_type.model_fields:
            values.setdefault("out", self.folder / name)
        config = config_type.parse(values, where=where)
        plan = verb.make_plan(config, specs, may_replace=self._may_replace(config), reserved=written)
        self._outs[name] = plan.out
        return Step(name, verb, plan)

    def _resolve(self, value: Any, step: str) -> Any:
        """Replace `${name}` in a setting; a setting that is only a reference keeps the parameter's type."""
        if isinstance(value, list):
            return [self._resolve(item, step) for item in value]
        if isinstance(value, dict):
            return {key: self._resolve(item, step) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        whole = REFERENCE.fullmatch(value)
        if whole:
            return self._look_up(whole[1], step)
        return REFERENCE.sub(lambda match: str(self._look_up(match[1], step)), value)

    def _look_up(self, name: str, step: str, *, default: bool = False) -> Any:
        """What `${name}` stands for; a parameter's own value (`default`) may name a step, but no parameter."""
        if name == HERE and self.recipe.folder is not None:
            return str(self.recipe.folder)
        earlier = list(self.recipe.steps)[: list(self.recipe.steps).index(step)]
        if name in earlier:
            out = self._outs[name]
            if out is None:
                raise UserError(f"step {step} refers to ${{{name}}}, but that step writes nothing")
            return str(out)
        if name in self.recipe.parameters and not default:
            return self._value_of(self.recipe.parameters[name], step)
        raise UserError(
            f"step {step} refers to ${{{name}}}, which is no parameter and no earlier step",
            hint=did_you_mean(name, [*earlier, *self.recipe.parameters]),
        )

    def _value_of(self, value: Any, step: str) -> Any:
        """A parameter's value, with what it refers to."""
        if not isinstance(value, str):
            return value
        return REFERENCE.sub(lambda match: str(self._look_up(match[1], step, default=True)), value)


def _require_own_place(name: str, out: Path, earlier: Iterable[Step]) -> None:
    """Raise UserError if the step would write where an earlier one writes, or in it, or around it."""
    for step in earlier:
        other = step.plan.out.resolve() if step.plan.out else None
        if other is not None and (out == other or out in other.parents or other in out.parents):
            raise UserError(
                f"step {name} writes {out}, " + ("as an earlier step does" if out == other else f"{step.name} {other}"),
                hint="Each step needs a folder of its own.",
            )


def require_all(steps: Iterable[Step]) -> None:
    """Raise UserError for the first step to be done whose checks fail."""
    for step in steps:
        if not step.done:
            step.plan.require()
