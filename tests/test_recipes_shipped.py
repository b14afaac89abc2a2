"""The shipped recipes of fine-tuning and alignment: their files, a model of one's own for the tiny one, a short run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import recipe_examples
from bottega.cli.main import main
from bottega.core.errors import UserError
from bottega.core.progress import Quiet
from bottega.core.recipe import (
    Chain,
    Recipe,
    examples_of,
    load_recipe,
    parse_recipe,
    shipped_folder,
    shipped_recipes,
    with_overrides,
    with_parameters,
)
from bottega.data.detection import detect_form
from bottega.train.axolotl.mapping import translate
from bottega.train.config import FORMS, Train
from bottega.verbs.registry import VERBS

NAMES = [name for name in shipped_recipes() if name != "quickstart"]
NOTEBOOKS = {
    "llama2-qlora": {"r": 64, "alpha": 16, "dropout": 0.1, "learning_rate": 2e-4, "batch_size": 4, "clip": 0.3},
    "mistral-qlora": {"r": 16, "alpha": 32, "learning_rate": 2e-4, "batch_size": 10, "row_length": 512, "epochs": 3},
    "codellama-axolotl": {"r": 32, "alpha": 16, "learning_rate": 2e-4, "tokens_per_step": 20480, "epochs": 3},
    "neuralhermes-dpo": {"r": 16, "alpha": 16, "learning_rate": 5e-5, "batch_size": 16, "max_steps": 200},
    "llama3-orpo": {"r": 16, "alpha": 32, "learning_rate": 8e-6, "batch_size": 8, "row_length": 1024},
    "llama31-rslora": {"r": 16, "alpha": 16, "use_rslora": True, "learning_rate": 3e-4, "tokens_per_step": 32768},
}


def last_step(recipe: Recipe) -> Train:
    """The settings of the last step, its references filled in with something."""
    settings = dict(list(recipe.steps.values())[-1])
    assert settings.pop("verb") == "train"
    chosen = {**dict.fromkeys(recipe.steps, "x"), **recipe.parameters}
    filled = re.sub(r'"\$\{(\w+)\}"', lambda found: json.dumps(chosen[found[1]]), json.dumps(settings))
    values = {key: value for key, value in json.loads(filled).items() if value is not None}
    return Train.parse({"out": "out", **values})


def test_the_examples_are_what_the_rules_make() -> None:
    made = recipe_examples.made()
    assert {path.name for path in recipe_examples.FOLDER.glob("*.jsonl")} == set(made)
    for name, text in made.items():
        assert (recipe_examples.FOLDER / name).read_text() == text, name


def test_every_example_is_used_and_none_is_missing() -> None:
    named = {example for text in shipped_recipes().values() for example in examples_of(text)}
    there = {f"examples/{path.name}" for path in recipe_examples.FOLDER.iterdir()}
    assert named == there


def test_length_and_first_words_do_not_tell_the_better_answer() -> None:
    """Otherwise a preference recipe would teach length or style, as the notebook's pairs do."""
    rows = [json.loads(line) for line in (recipe_examples.FOLDER / "preference.jsonl").open()]
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) / len(rows)
    same_start = sum(row["chosen"].split()[0] == row["rejected"].split()[0] for row in rows) / len(rows)
    assert 0.2 < longer < 0.5 and same_start == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_read_as_its_stage_needs_it(name: str) -> None:
    for settings in load_recipe(name).steps.values():
        if settings["verb"] != "train":
            continue
        data = settings["data"]
        value = load_recipe(name).parameters.get(data[2:-1], data)
        path = Path(value.replace("${here}", str(shipped_folder())))
        wanted = FORMS[settings.get("stage", "pretrain")]
        found = detect_form(path)[0]
        # A prompt with its answer can be a conversation too; the stage decides.
        assert found == wanted or (wanted, found) == ("prompts", "chat"), (path.name, found)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_ones_own_needs_no_small_one(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert list(recipe.steps)[:3] == ["tokenizer", "base", "chat"]
    own = with_parameters(recipe, {"model": "org/name"})
    assert list(own.steps) == list(recipe.steps)[3:] and not own.when_given
    steps = Chain(recipe, tmp_path, VERBS).plan()
    assert [step.name for step in steps] == list(recipe.steps)
    assert all(check.passed for step in steps for check in step.plan.checks)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_with_the_real_model_a_recipe_is_its_notebook(name: str) -> None:
    config = last_step(with_parameters(load_recipe(name), {"model": "org/name"}))
    assert config.adapter is not None and config.adapter.type == "qlora" and config.adapter.base == "nf4"
    found = config.as_data() | config.adapter.as_data()
    assert {key: found[key] for key in NOTEBOOKS[name]} == NOTEBOOKS[name]


def test_one_changed_line_in_the_file_does_the_same() -> None:
    text = shipped_recipes()["llama31-rslora"]
    changed = parse_recipe(text.replace("  model: ${chat}", "  model: org/name"), "mine.yaml")
    given = with_overrides(load_recipe("llama31-rslora"), ["model=org/name"])
    assert changed.steps == given.steps and changed.parameters == given.parameters
    assert changed.parameters["tokens_per_step"] == 32768
    chosen = with_overrides(load_recipe("llama31-rslora"), ["tokens_per_step=99", "model=org/name"])
    assert chosen.parameters["tokens_per_step"] == 99  # what is given itself comes last


def test_the_axolotl_file_is_the_recipe() -> None:
    data: dict[str, Any] = yaml.safe_load((recipe_examples.FOLDER / "codellama-axolotl.yml").read_text())
    foreign = translate(data)
    assert foreign is not None and not foreign.of("not understood")
    recipe = last_step(with_parameters(load_recipe("codellama-axolotl"), {"model": data["base_model"]}))
    mine, theirs = recipe.as_data(), Train.parse(foreign.settings).as_data()
    apart = {"out", "data", "heldout", "evaluate_every", "dtype", "warmup_steps"}
    assert {key for key in mine if mine[key] != theirs[key]} <= apart


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("when_given: {b: {}}", "b is not a rule for a parameter"),
        ("when_given: {a: 1}", "a is not a rule for a parameter"),
        ("when_given: {a: {with: 1}}", "a is not a rule for a parameter"),
        ("when_given: {a: {leave_out: [two]}}", "leave_out: there is no 'two'"),
        ("when_given: {a: {parameters: {c: 1}}}", "parameters: there is no 'c'"),
    ],
)
def test_rules_that_fit_nothing_are_refused(body: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_recipe(f"parameters: {{a: '${{one}}'}}\nsteps: {{one: {{verb: train}}}}\n{body}", "mine.yaml")


def test_parameters_do_not_refer_to_each_other() -> None:
    body = "parameters: {a: '${b}', b: '${a}'}\nsteps: {one: {verb: train, data: '${a}', tokenizer: t}}"
    with pytest.raises(UserError, match="which is no parameter and no earlier step"):
        Chain(parse_recipe(body, "mine.yaml"), Path("w"), VERBS).plan()


def test_a_copy_brings_its_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "primer.jsonl").write_text("mine\n")
    monkeypatch.setattr("sys.argv", ["bottega", "recipes", "copy", "dpo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert (tmp_path / "examples" / "preference.jsonl").is_file()
    assert (tmp_path / "examples" / "primer.jsonl").read_text() == "mine\n"
    copied = load_recipe("dpo.yaml")
    assert copied.folder == Path() and copied.steps == load_recipe("dpo").steps


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs(name: str, tmp_path: Path) -> None:
    """Cut short: what it is after takes longer, and is measured by the tests of the stages."""
    recipe = with_overrides(load_recipe(name), ["base.tokens=20000", "chat.epochs=1"])
    for step, settings in recipe.steps.items():
        if step not in ("tokenizer", "base", "chat"):
            settings |= {"max_steps": 2, "epochs": None}
    steps = Chain(recipe, tmp_path, VERBS).run(Quiet())
    for step in steps[3:]:
        assert step.plan.out is not None
        lines = [json.loads(line) for line in (step.plan.out / "metrics.jsonl").open()]
        losses = [line["loss"] for line in lines if "loss" in line]  # other lines are of the held-out data
        assert len(losses) == 2 and all(map(math.isfinite, losses))
        made = "adapter" if step.plan.config.as_data()["adapter"] else "model"
        assert (step.plan.out / made).is_dir()
