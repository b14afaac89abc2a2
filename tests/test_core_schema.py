"""Strict settings: unknown keys, values from YAML, and a doc for every setting of every verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottega.core.errors import UserError, did_you_mean
from bottega.core.schema import Compute, Writes, parse_override, parse_scalar, parse_yaml, read_yaml
from bottega.train.config import Train
from bottega.verbs.registry import VERBS


class Settings(Writes, Compute):
    """Settings of a test."""

    steps: int = 1
    rate: float = 0.1


def test_an_unknown_key_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        Settings.parse({"out": "x", "stepps": 3}, where="train")
    assert caught.value.message == "train: unknown setting 'stepps'"
    assert caught.value.hint == "Did you mean 'steps'?"


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Settings.parse({"steps": "many", "threads": 0})
    assert all(part in caught.value.message for part in ("'out' is required", "steps: ", "(got 'many')", "threads: "))


def test_a_rule_about_several_settings_does_not_print_all_of_them() -> None:
    with pytest.raises(UserError) as caught:
        Train.parse({"out": "o", "data": "d", "tokenizer": "t", "tokens": 5, "epochs": 1}, where="train")
    assert caught.value.message == "train: give tokens or epochs, not both"


def test_a_hint_without_a_near_word_lists_what_is_known() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "Known: a, b."
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("-2.5e+1", -25.0), ("7", 7), ("0.5", 0.5), ("true", True), ("null", None),
        ("[1, 2]", [1, 2]), ("def f", "def f"), ("infinity", "infinity"), ("nan", "nan"), ("'12'", "12"), ("", None),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    found = parse_scalar(text)
    assert found == value and type(found) is type(value)


def test_overrides() -> None:
    assert parse_override("train.learning_rate=1e-3") == (["train", "learning_rate"], 0.001)
    assert parse_override("a.b==c") == (["a", "b"], "=c")
    for wrong in ("learning_rate", "=3", " =3"):
        with pytest.raises(UserError, match="is not an override"):
            parse_override(wrong)
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_override("a=[1")


def test_yaml_refuses_a_key_given_twice_also_below() -> None:
    with pytest.raises(UserError, match=r"file.yaml is not valid YAML: the key 'a' is given twice(.|\n)*line 3"):
        parse_yaml("x:\n  a: 1\n  a: 2\n", "file.yaml")
    assert parse_yaml("base: &b {a: 1}\nx: {<<: *b, a: 2}\n", "f") == {"base": {"a": 1}, "x": {"a": 2}}


def test_yaml_runs_nothing() -> None:
    with pytest.raises(UserError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []", "file.yaml")


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with pytest.raises(UserError, match="No such file"):
        read_yaml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not text in UTF-8"):
        read_yaml(path)


@pytest.mark.parametrize("name", VERBS)
def test_every_setting_has_one_line_of_doc(name: str) -> None:
    fields = VERBS[name].config_type().model_fields
    for field, info in fields.items():
        assert info.description, f"{name}.{field}"
        assert "\n" not in info.description.strip(), f"{name}.{field}"


def test_a_word_in_the_place_of_a_section_says_how_one_is_written() -> None:
    with pytest.raises(UserError) as caught:
        Train.parse({"data": "d", "model": "m", "out": "o", "preference": "dpo"}, where="train")
    assert caught.value.message == "train: preference: takes settings, written {name: value, …} (got 'dpo')"
