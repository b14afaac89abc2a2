"""The command line: every verb's help, settings from everywhere, errors as messages, JSON as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bottega import verbs
from bottega.cli.main import main
from bottega.cli.render import show_json
from bottega.core.errors import UserError
from bottega.core.recipe import shipped_recipes
from bottega.core.record import read_record
from bottega.verbs.registry import VERBS
from conftest import Call, Workshop


def strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("name", VERBS)
def test_help_names_every_setting_with_its_doc(bottega: Call, name: str) -> None:
    status, out, err = bottega(*name.split(), "--help")
    assert (status, err) == (0, "")
    words = " ".join(out.split())
    verb = VERBS[name]
    for setting, field in verb.config_type().model_fields.items():
        assert (setting.upper() if setting in verb.arguments else "--" + setting.replace("_", "-")) in out, setting
        assert (field.description or "?").split(". ")[0].split()[0] in words, setting
    assert all(flag in out for flag in ("--plan", "--json", "--debug", "--quiet"))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("generate", r"Prompt:\n  --prompt <str>", r"Where the answer ends:\n  --stop "),
        ("serve", r"Server:\n  --host <str>", r"Who may use it:\n  --api-key "),
        ("bench serve", r"Load:\n  --rate <float>", r"Options:\n  --plan"),
    ],
)
def test_long_help_has_sections(bottega: Call, name: str, first: str, second: str) -> None:
    _, out, _ = bottega(*name.split(), "--help")
    assert re.search(first + r"[\s\S]+" + second, out), out
    assert out.count("--seed <int>") <= 1 and "default: (" not in out and "default: []" not in out


def test_help_lists_every_verb(bottega: Call) -> None:
    status, out, _ = bottega("--help")
    assert status == 0
    for name in VERBS:
        assert re.search(rf"^\s+{name.split()[0]}\s", out, re.MULTILINE), name
    assert "run" in out and "recipes" in out
    status, out, _ = bottega("data", "--help")
    assert "collect" in out and "prepare" in out
    status, out, _ = bottega("--version")
    assert (status, out) == (0, "0.1.0\n")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("tokenizer train data=x out=y vocab_sise=300", ["unknown setting 'vocab_sise'", "Did you mean 'vocab_size'?"]),
        ("tokenizer train --vocab-sise 300", ["--vocab-sise", "--vocab-size"]),
        ("tokenizer train tokenizer_train.vocab_sise=300", ["unknown setting 'vocab_sise'", "'vocab_size'"]),
        ("tokenizer train =3", ["is not an override"]),
        ("tokenizer train data=x", ["'out' is required"]),
        ("tokenizer train data=none out=y vocab_size=300", ["none"]),
        ("tokenizer train data=x out=y vocab_size=3", ["vocab_size", "greater than or equal to 264", "(got 3)"]),
        ("tokenizer train missing.yaml", ["cannot read missing.yaml"]),
        ("show nowhere", ["nowhere"]),
        ("generate nowhere --prompt x --dtype float8", ["float8"]),
        ("tokenzier train", ["tokenzier"]),
        ("run quickstrat", ["no recipe 'quickstrat'", "Did you mean 'quickstart'?"]),
        ("run missing.yaml", ["cannot read missing.yaml"]),
        ("run quickstart --sise tiny", ["no parameter 'sise'", "Did you mean 'size'?"]),
        ("run quickstart --size", ["--size needs a value"]),
        ("run quickstart --size huge", ["size", "got 'huge'"]),
        ("run quickstart tiny", ["'tiny' is neither an option nor NAME=VALUE"]),
        ("run quickstart --size tiny bass.seed=1", ["no step for the override", "Did you mean 'base'?"]),
        ("run quickstart --size tiny base.sede=1", ["step base: unknown setting 'sede'", "Did you mean 'seed'?"]),
        ("run --size tiny quickstart", ["no recipe is named"]),
        ("run quickstart --text nowhere", ["there is no such file or folder"]),
        ("run quickstart --text 2024", ["there is no such file or folder"]),
        ("run quickstart --text [draft]#1", ["there is no such file or folder"]),
        ("generate nowhere --prompt x --system y", ["needs --chat"]),
        ("generate nowhere --prompt x --seed 99999999999999999999", ["seed", "less than"]),
        ("recipes copy quickstrat", ["Did you mean 'quickstart'?"]),
    ],
)
def test_the_users_mistakes_end_with_a_message_and_status_2(bottega: Call, words: str, parts: list[str]) -> None:
    status, out, err = bottega(*words.split())
    assert status == 2, err
    assert out == "" and "Traceback" not in err and "unexpected" not in err
    assert all(part in err for part in parts), err
    assert list(Path().iterdir()) == []


def test_debug_shows_the_traceback(bottega: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bottega", "show", "nowhere", "--debug"])
    with pytest.raises(UserError):
        main()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ZeroDivisionError("by zero"), 1, "unexpected failure: ZeroDivisionError: by zero"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_other_failures(
    bottega: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("bottega.core.doctor.run_doctor", fail)
    found, out, err = bottega("doctor")
    assert (found, out) == (status, "") and said in err and "Traceback" not in err


def test_plan_writes_nothing_and_tells_what_would_be(bottega: Call, workshop: Workshop) -> None:
    words = ["tokenizer", "train", f"data={workshop.corpus}", "out=tok", "vocab_size=300"]
    status, out, err = bottega(*words, "--plan", "--json")
    plan = strict_json(out)
    assert status == 0 and err == ""
    assert plan["verb"] == "tokenizer train" and plan["out"] == "tok" and plan["config"]["vocab_size"] == 300
    assert {check["name"]: check["passed"] for check in plan["checks"]} == {"text": True, "out": True, "disk": True}
    status, out, _ = bottega(*words, "--plan")
    assert status == 0 and "300 tokens" in out and "writes" in out
    assert list(Path().iterdir()) == []


def test_a_plan_that_fails_says_so_and_ends_with_2(bottega: Call, workshop: Workshop) -> None:
    Path("tok").mkdir()
    status, out, err = bottega(
        "tokenizer", "train", f"data={workshop.corpus}", "out=tok", "vocab_size=300", "--plan", "--json"
    )
    assert status == 2 and "tok exists already" in err
    assert [check["passed"] for check in strict_json(out)["checks"] if check["name"] == "out"] == [False]


def test_json_is_alone_on_standard_output(bottega: Call, workshop: Workshop) -> None:
    words = ["tokenizer", "train", f"data={workshop.corpus}", "out=tok", "vocab_size=300", "--json"]
    status, out, err = bottega(*words)
    assert status == 0, err
    assert strict_json(out)["vocab_size"] == 300
    assert "reading text" in err
    record = read_record(Path("tok"))
    assert record is not None and record.metrics == strict_json(out)
    status, _, err = bottega(*words)
    assert status == 2 and "tok exists already" in err and "--overwrite" in err
    status, out, err = bottega(*words, "--overwrite", "--quiet")
    assert (status, err) == (0, "") and strict_json(out)["vocab_size"] == 300


def test_nan_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"loss": float("nan"), "best": float("inf"), "path": Path("x"), "rows": [(1, 2.5)]})
    assert strict_json(capsys.readouterr().out) == {"loss": None, "best": None, "path": "x", "rows": [[1, 2.5]]}


def test_settings_from_file_then_single_ones_then_options(bottega: Call, workshop: Workshop) -> None:
    Path("tok.yaml").write_text(f"verb: tokenizer train\ndata: {workshop.corpus}\nout: tok\nvocab_size: 3e2\n")
    plans = [
        strict_json(bottega("tokenizer", "train", "tok.yaml", *more, "--plan", "--json")[1])["config"]
        for more in (
            [],
            ["vocab_size=310", "min_frequency=3"],
            ["vocab_size=310", "--vocab-size", 320],
            ["tokenizer_train.vocab_size=330"],
        )
    ]
    assert [(plan["vocab_size"], plan["min_frequency"]) for plan in plans] == [(300, 2), (310, 3), (320, 2), (330, 2)]


def test_files_and_single_settings_go_with_arguments_by_position(bottega: Call, workshop: Workshop) -> None:
    Path("look.yaml").write_text(f"verb: tokenizer inspect\ntokenizer: {workshop.tokenizer}\ntext: from the file\n")

    def look(*words: object) -> str:
        status, out, err = bottega("tokenizer", "inspect", *words, "--plan", "--json")
        assert status == 0, err
        config = strict_json(out)["config"]
        assert config["tokenizer"] == str(workshop.tokenizer)
        return config["text"]

    assert look("look.yaml") == "from the file"
    assert look("look.yaml", "text=2024 #1") == "2024 #1"
    assert look(workshop.tokenizer, "x = 1") == "x = 1"  # no setting is called x
    assert look(workshop.tokenizer, "look.yaml", "said") == "said"
    assert look("text=before", workshop.tokenizer) == "before"
    assert look(f"tokenizer={workshop.tokenizer}", "text=text=5") == "text=5"
    assert look("look.yaml", "tokenizer_inspect.text=whole name") == "whole name"
    assert look(workshop.tokenizer, "missing.yaml") == "missing.yaml"
    for words, said in (
        ((workshop.tokenizer, "a", "b"), "cannot read b"),
        (("text=a",), "'tokenizer' is required"),
        ((workshop.tokenizer, "a", "txet=b"), "Did you mean 'text'?"),
    ):
        status, _, err = bottega("tokenizer", "inspect", *words)
        assert status == 2 and said in err


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.arguments])
def test_every_verb_takes_its_settings_from_a_file(bottega: Call, name: str) -> None:
    Path("mine.yaml").write_text("no_such_setting: 1\n")
    status, _, err = bottega(*name.split(), "mine.yaml")
    assert status == 2 and f"{name}: " in err and "unknown setting 'no_such_setting'" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("verb: train\nout: x\n", "holds the settings of another verb, not of tokenizer train"),
        ("steps: {a: {verb: train}}\n", "Run it with: bottega run mine.yaml"),
        ("- 1\n", "mine.yaml is not a mapping of settings"),
        ("out: [\n", "mine.yaml is not valid YAML"),
        ("out: x\nout: y\n", "the key 'out' is given twice"),
    ],
)
def test_files_that_do_not_fit(bottega: Call, content: str, said: str) -> None:
    Path("mine.yaml").write_text(content)
    status, _, err = bottega("tokenizer", "train", "mine.yaml")
    assert status == 2 and said in err


def test_a_verbs_own_file_is_one_step_of_run(bottega: Call, workshop: Workshop) -> None:
    for out in ("by_verb", "by_run"):
        Path(f"{out}.yaml").write_text(f"verb: tokenizer train\ndata: {workshop.corpus}\nout: {out}\nvocab_size: 300\n")
    assert bottega("tokenizer", "train", "by_verb.yaml")[0] == 0
    status, out, err = bottega("run", "by_run.yaml", "--json")
    assert status == 0, err
    by_verb, by_run = read_record(Path("by_verb")), read_record(Path("by_run"))
    assert by_verb is not None and by_run is not None
    assert (by_verb.step_hash, by_verb.content_hash) == (by_run.step_hash, by_run.content_hash)
    assert strict_json(out)["steps"] == {"tokenizer-train": by_run.metrics}
    status, _, err = bottega("run", "by_run.yaml", "vocab_size=300")
    assert status == 2 and "has no parameter" in err


def test_run_plans_runs_skips_and_reports(bottega: Call, workshop: Workshop) -> None:
    recipe = (
        "parameters: {tokens: 300}\nsmaller: {tokens: [300, 310]}\npatience_seconds: 0\n"
        "steps:\n"
        f"  tok: {{verb: tokenizer train, data: {workshop.corpus}, vocab_size: '${{tokens}}'}}\n"
        f"  text: {{verb: data prepare, data: {workshop.corpus}, tokenizer: '${{tok}}'}}\n"
        "  seen: {verb: tokenizer inspect, tokenizer: '${tok}', text: hello}\n"
    )
    Path("mine.yaml").write_text(recipe)
    status, out, err = bottega("run", "mine.yaml", "--plan", "--json")
    assert status == 0, err
    assert [(step["step"], step["done"]) for step in strict_json(out)] == [
        ("tok", False), ("text", False), ("seen", False),
    ]  # fmt: skip
    assert "3 of 3 steps to do" in bottega("run", "mine.yaml", "--plan")[1]
    assert not Path("workspace").exists()
    status, out, err = bottega("run", "mine.yaml", "--json", "--tokens", 310)
    found = strict_json(out)
    assert status == 0 and found["steps"]["tok"]["vocab_size"] == 310 and found["steps"]["seen"], err
    assert "smaller: bottega run mine.yaml --tokens 300\n" in err
    assert "310" in Path(found["report"]).read_text()
    status, out, err = bottega("run", "mine.yaml", "--tokens=310")
    assert status == 0 and err.count("done already") == 2 and "hello" in out.replace(" ", "").replace("·", "")
    for words in (("--plan",), ()):
        status, out, err = bottega("run", "mine.yaml", "--tokens=320", *words)
        line = "replaced, as settings or inputs differ: tok and what follows from changed inputs (text); another --work"
        assert status == 0 and line in (out if words else err)
    status, out, err = bottega("run", "mine.yaml", "tokenizer_train.min_frequency=3", "--quiet", "--workspace", "other")
    assert (status, Path("other/mine/report.html").is_file()) == (0, True)
    assert "done already" not in err


@pytest.mark.parametrize(
    ("words", "smaller"),
    [
        ("--size base --text {docs}", "mine.yaml --text {docs} --size small"),
        ("--text={docs} --size=small --workspace w", "mine.yaml --text={docs} --workspace=w --size tiny"),
        ("size=small model.seed=2 --text {docs}", "mine.yaml model.seed=2 --text {docs} --size tiny"),
        ("--seed 3 --size small --text {docs}", "mine.yaml --text {docs} --seed=3 --size tiny"),
        ("--size tiny --text {docs}", None),
    ],
)
def test_a_long_run_offers_the_same_command_with_the_next_smaller_size(
    bottega: Call, workshop: Workshop, words: str, smaller: str | None
) -> None:
    text = shipped_recipes()["quickstart"]
    Path("mine.yaml").write_text(text.replace("patience_seconds: 360", "patience_seconds: 1"))
    given = words.format(docs=workshop.documents).split()
    status, out, err = bottega("run", "mine.yaml", *given, "--plan")
    assert status == 0 and err == "" and "9 of 9 steps to do" in out
    offers = [line for line in out.splitlines() if line.startswith("that is more than 1.0 s; smaller: ")]
    expected = [] if smaller is None else ["bottega run " + smaller.format(docs=workshop.documents)]
    assert [line.partition("smaller: ")[2] for line in offers] == expected


def test_common_options_go_to_every_step_that_has_them(bottega: Call, workshop: Workshop) -> None:
    words = ["run", "quickstart", "--text", workshop.documents, "--plan", "--json", "--threads", 1, "--seed", 7]
    status, out, err = bottega(*words, "--dtype=float32", "base.seed=3")
    assert status == 0, err
    for step in strict_json(out):
        verb, config = VERBS[step["verb"]], step["config"]
        for name, value in (("threads", 1), ("seed", 3 if step["step"] == "base" else 7), ("dtype", "float32")):
            assert (name in config) == (name in verb.config_type().model_fields)
            assert config.get(name, value) == value, (step["step"], name)
    assert {step["step"] for step in strict_json(out) if "seed" in step["config"]} >= {"corpus", "base", "model"}
    step = f"{{verb: tokenizer train, data: {workshop.corpus}, vocab_size: '${{seed}}'}}"
    Path("mine.yaml").write_text(f"parameters: {{seed: 300}}\nsteps: {{tok: {step}}}\n")
    status, out, err = bottega("run", "mine.yaml", "--plan", "--json", "--seed", 310)  # the recipe's own meaning
    assert status == 0 and strict_json(out)[0]["config"]["vocab_size"] == 310, err
    status, _, err = bottega("run", "mine.yaml", "--plan", "--threads", 1)
    assert status == 2 and "no step of recipe mine has the setting 'threads'" in err


def test_recipes_are_listed_copied_and_described(bottega: Call) -> None:
    status, out, _ = bottega("recipes", "list")
    assert status == 0 and "quickstart" in out and "--size small" in out
    status, _, err = bottega("recipes", "copy", "quickstart", "mine.yaml")
    assert status == 0 and "bottega run mine.yaml" in err
    status, out, err = bottega("run", "mine.yaml", "--size", "tiny", "--plan")
    assert status == 0 and "Plan of quickstart" in out
    status, _, err = bottega("recipes", "copy", "quickstart", "mine.yaml")
    assert status == 2 and "exists already" in err
    status, out, _ = bottega("recipes", "schema")
    assert status == 0 and strict_json(out)["title"] == "Bottega recipe"


def test_a_busy_workspace_is_said_clearly(bottega: Call, workshop: Workshop) -> None:
    from test_core_atomic import hold

    Path("mine.yaml").write_text(f"verb: tokenizer train\ndata: {workshop.corpus}\nvocab_size: 300\n")
    Path("workspace").mkdir()
    holder = hold("workspace", Path("workspace"))
    status, _, err = bottega("run", "mine.yaml")
    assert status == 2 and "the workspace workspace is in use by another process" in err and "Wait until" in err
    holder.communicate("\n")
    assert bottega("run", "mine.yaml")[0] == 0


def test_the_python_api_is_one_function_per_verb(workshop: Workshop, tmp_path: Path) -> None:
    from bottega.verbs import tokenizer_inspect

    assert tokenizer_inspect.__name__ == "tokenizer_inspect" and "tokens" in (tokenizer_inspect.__doc__ or "")
    assert set(dir(verbs)) >= {name.replace(" ", "_") for name in VERBS}
    assert tokenizer_inspect(tokenizer=workshop.tokenizer, text="hello")
    with pytest.raises(UserError, match="tokenizer inspect: unknown setting 'txet'"):
        tokenizer_inspect(tokenizer=workshop.tokenizer, txet="hello")
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = verbs.trian
    with pytest.raises(ImportError):
        exec("from bottega.verbs import trian")


def test_the_python_api_plans_as_the_command_does(bottega: Call, workshop: Workshop) -> None:
    settings = {"data": workshop.corpus, "out": "tok", "vocab_size": 300}
    words = ["tokenizer", "train", *(f"{name}={value}" for name, value in settings.items()), "--plan", "--json"]
    plan = verbs.plan("tokenizer_train", **settings)
    printed = strict_json(bottega(*words)[1])
    for each in (plan, printed):  # what is free changes from moment to moment
        each["checks"] = [(check["name"], check["passed"]) for check in each["checks"]]
    assert json.loads(json.dumps(plan)) == json.loads(json.dumps(printed)) and not Path("tok").exists()
    Path("tok").mkdir()
    checks = verbs.plan("tokenizer train", **settings)["checks"]
    assert [check["passed"] for check in checks if check["name"] == "out"] == [False]
    with pytest.raises(UserError, match="unknown verb 'trian'"):
        verbs.plan("trian")
    with pytest.raises(UserError, match="unknown setting 'vocab_sise'"):
        verbs.plan("tokenizer train", vocab_sise=3)
