"""Recipe files: what they may say, overrides, and that every shipped one can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.core.errors import UserError
from bottega.core.recipe import (
    Chain,
    Recipe,
    load_recipe,
    next_smaller,
    parse_recipe,
    shipped_recipes,
    with_overrides,
    with_parameters,
)
from bottega.verbs.registry import VERBS


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "is not a recipe"),
        ("[1]", "is not a recipe"),
        ("steps: {}", "is not a recipe"),
        ("steps: [a]", "is not a recipe"),
        ("steps: {a: 1}", "names no verb"),
        ("steps: {a: {verb: 3}}", "names no verb"),
        ("steps: {../a: {verb: x}}", "not a plain name"),
        ("steps: {a/b: {verb: x}}", "not a plain name"),
        ("steps: {1: {verb: x}}", "not a plain name"),
        ("name: ../up\nsteps: {a: {verb: x}}", "not a plain name"),
        ("name: ..\nsteps: {a: {verb: x}}", "not a plain name"),
        ("stesp: {}\nsteps: {a: {verb: x}}", "unknown key 'stesp'"),
        ("parameters: 3\nsteps: {a: {verb: x}}", "`parameters` is not a mapping"),
        ("report: text\nsteps: {a: {verb: x}}", "`report` is not a mapping"),
        ("report: {headings: text}\nsteps: {a: {verb: x}}", "report: `headings` is not a mapping"),
        ("report: {limits: text}\nsteps: {a: {verb: x}}", "`limits` is not a list"),
        ("patience_seconds: long\nsteps: {a: {verb: x}}", "is not a number"),
        ("smaller: less\nsteps: {a: {verb: x}}", "`smaller` is not a mapping"),
        ("smaller: {size: [1]}\nsteps: {a: {verb: x}}", "'size' is not a parameter with a list of values"),
        ("parameters: {size: 1}\nsmaller: {size: 1}\nsteps: {a: {verb: x}}", "'size' is not a parameter with a list"),
        ("parameters: {a: 1}\nsteps: {a: {verb: x}}", "'a' is a step and a parameter"),
        ("steps: {a: {verb: x}, a: {verb: y}}", "the key 'a' is given twice"),
        ("steps: [", "is not valid YAML"),
    ],
)
def test_what_a_recipe_refuses(body: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_recipe(body, "mine.yaml")
    assert message in caught.value.message and "mine.yaml" in caught.value.message


def recipe() -> Recipe:
    steps = "{one: {verb: data prepare, a: 1}, two: {verb: data prepare}, base: {verb: train}}"
    return parse_recipe(f"parameters: {{size: small}}\nsteps: {steps}", "mine.yaml")


def test_the_next_smaller_value() -> None:
    body = "parameters: {size: small, n: 3}\nsmaller: {size: [tiny, small, base], n: [1, 2]}\nsteps: {a: {verb: x}}"
    parsed = parse_recipe(body, "mine.yaml")
    found = [next_smaller(with_overrides(parsed, [f"size={size}", "n=2"])) for size in ("base", "small", "tiny", "own")]
    assert found == [{"size": "small"}, {"size": "tiny"}, {"n": 1}, {"n": 1}]
    assert next_smaller(with_overrides(parsed, ["size=tiny"])) == {}


def test_overrides_by_step_verb_and_parameter() -> None:
    base = recipe()
    made = with_overrides(base, ["one.a=2", "data_prepare.kind=chat", "train.learning_rate=1e-3", "size=tiny"])
    assert made.steps == {
        "one": {"verb": "data prepare", "a": 2, "kind": "chat"},
        "two": {"verb": "data prepare", "kind": "chat"},
        "base": {"verb": "train", "learning_rate": 0.001},
    }
    assert made.parameters == {"size": "tiny"}
    assert base == recipe()  # the given one stays as it was


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("bass.seed=1", "no step for the override", "'base'"),
        ("trian.seed=1", "no step for the override", "'train'"),
        ("sise=tiny", "has no parameter 'sise'", "'size'"),
        ("base.verb=eval", "cannot be overridden", "Copy the recipe"),
    ],
)
def test_overrides_that_fit_nothing(override: str, message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        with_overrides(recipe(), [override])
    assert message in caught.value.message and hint in caught.value.hint


def test_recipes_by_name_and_by_path(tmp_path: Path) -> None:
    assert load_recipe("quickstart").name == "quickstart"
    with pytest.raises(UserError, match="no recipe 'quickstrat'") as caught:
        load_recipe("quickstrat")
    assert caught.value.hint == "Did you mean 'quickstart'?"
    for name, content in (("none.yaml", None), ("bytes.yaml", b"\xff\xff")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_recipe(str(tmp_path / name))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_planned(name: str, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("# Title\n\nA paragraph of prose under its heading.\n" * 9)
    parsed = load_recipe(name)
    small = {"size": "tiny", "text": str(tmp_path / "text")}
    parsed = with_parameters(parsed, {key: small[key] for key in small if key in parsed.parameters})
    steps = Chain(parsed, tmp_path / "w", VERBS).plan()
    assert steps and not (tmp_path / "w").exists()
    for step in steps:
        assert step.plan.work, step.name
