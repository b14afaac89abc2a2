"""Settings of sections as options and words; hints for names that other programs have; what a check's status says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bottega.core.errors import UserError
from bottega.core.known_names import KNOWN_NAMES
from bottega.core.schema import section_of
from bottega.train.config import Train
from bottega.verbs.registry import VERBS
from conftest import Call, Workshop


def config_of(bottega: Call, workshop: Workshop, *words: object) -> dict[str, Any]:
    """The settings that a command of `train` comes to; a new model, as only its settings are looked at."""
    start = ["train", f"data={workshop.tokens}", f"tokenizer={workshop.tokenizer}", "out=o", "tokens=256"]
    status, out, err = bottega(*start, *words, "--plan", "--json")
    assert status == 0, err
    return json.loads(out)["config"]


def test_a_sections_settings_are_options_and_words(bottega: Call, workshop: Workshop) -> None:
    for words in (
        ["--launch.nodes", "2", "--launch.hours=3"],
        ["launch.nodes=2", "launch.hours=3"],
        ["--launch", "{nodes: 5, hours: 3}", "--launch.nodes", "2"],  # the single one, wherever it stands
        ["--launch.nodes", "2", "--launch", "{nodes: 5, hours: 3}"],
        ["--train.launch.nodes=2", "launch={hours: 3}"],
    ):
        found = config_of(bottega, workshop, "launch.kind=slurm", *words)["launch"]
        assert (found["nodes"], found["hours"]) == (2, 3), words
    Path("mine.yaml").write_text("launch: {kind: slurm, nodes: 5, hours: 3}\n")
    assert config_of(bottega, workshop, "mine.yaml", "--launch.nodes", "2")["launch"]["hours"] == 3
    Path("word.yaml").write_text("launch: slurm\n")
    launch = config_of(bottega, workshop, "word.yaml", "--launch.nodes", 2)["launch"]
    assert (launch["kind"], launch["nodes"]) == ("slurm", 2)
    parallel = config_of(bottega, workshop, "--parallel.gather-dtype", "bfloat16", "parallel.strategy=zero3")
    assert parallel["parallel"]["gather_dtype"] == "bfloat16"


def test_a_section_may_be_one_word() -> None:
    for given, base in (("lora", "none"), ("qlora", "nf4"), ({"type": "qlora", "r": 4}, "nf4")):
        config = Train.parse({"stage": "sft", "model": "m", "data": "d", "out": "o", "adapter": given})
        assert config.adapter is not None and config.adapter.base == base
    with pytest.raises(UserError, match=r"adapter\.type: Input should be 'lora' or 'qlora'"):
        Train.parse({"stage": "sft", "model": "m", "data": "d", "out": "o", "adapter": "adalora"})


def test_settings_within_settings_of_a_section(bottega: Call) -> None:
    words = ["run", "sft-lora", "--plan", "--json"]
    several = ["--tuned.adapter.rank_pattern.k_proj", 4, "tuned.adapter.rank_pattern.v_proj=2", "tuned.adapter.r=3"]
    status, out, err = bottega(*words, *several)
    assert status == 0, err
    (adapter,) = [step["config"]["adapter"] for step in json.loads(out) if step["step"] == "tuned"]
    assert (adapter["r"], adapter["rank_pattern"], adapter["type"]) == (3, {"k_proj": 4, "v_proj": 2}, "lora")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--adapter.r", "--adapter.r needs a value"),
        ("--adapter.r --plan", "--adapter.r needs a value"),
        ("--adapter.rank 8", "Here it is called 'r'."),
        ("--data.r 8", "data is one value, it has no setting 'r'"),
        ("--adaptor.r 8", "No such option: --adaptor.r"),
        ("--lora-r 8", "Here it is --adapter.r."),
        ("--lr 1e-3", "Here it is --learning-rate."),
        ("--gradient-accumulation-steps 4", "batch_size is that of a whole step"),
        ("--learning-rat 1", "--learning-rate"),
        ("rank=8", "It is a setting of 'adapter': adapter: {r: …} in a file, --adapter.r … as an option."),
        ("lr=1", "Here it is called 'learning_rate'."),
        ("adapter.lr=1", "'learning_rate' stands beside 'adapter', not in it."),
        ("num_epochs=1 lora_r=8", "num_epochs: Here it is called 'epochs'. lora_r: It is a setting of 'adapter'"),
        ("per_device_train_batch_size=1", "micro_batch_tokens how much of it is computed at once"),
        ("colour=1 heldut=x", "heldut: Did you mean 'heldout'?"),
        ("policy.num_generations=4", "Here it is called 'group'."),
        ("beta=1", "It is a setting of 'preference' and 'policy'"),
    ],
)
def test_names_that_other_programs_have_are_told_by_ours(bottega: Call, words: str, said: str) -> None:
    status, _, err = bottega("train", "--stage", "sft", "--model", "m", "--data", "d", "--out", "o", *words.split())
    assert status == 2 and said in err and "Traceback" not in err, err


def test_every_name_of_others_leads_to_a_setting_and_hides_none() -> None:
    configs = [verb.config_type() for verb in VERBS.values()]
    sections = [section for config in configs for field in config.model_fields.values()
                if (section := section_of(field.annotation))]  # fmt: skip
    known = {name for config in [*configs, *sections] for name in config.model_fields}
    for name, ours in KNOWN_NAMES.items():
        assert name not in Train.model_fields, name
        assert isinstance(ours, str) or set(ours) <= known, name
    with pytest.raises(UserError) as error:  # a name that is one of ours elsewhere is not explained by the table
        VERBS["tokenizer train"].config_type().parse({"data": "d", "out": "o", "vocab_size": 300, "lr": 1})
    assert error.value.hint.startswith("Known: ")


def test_data_of_which_nothing_can_be_used_ends_the_check_with_2(bottega: Call, workshop: Workshop) -> None:
    talk = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "The river keeps."}]}
    bad = {"messages": [{"role": "wizard", "content": "x"}, talk["messages"][1]]}
    for name, rows in (("some", [bad, talk]), ("none", [bad, bad])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, length, usable in (("some", 512, 1), ("none", 512, 0), ("some", 4, 0)):
        words = ["data", "check", f"{name}.jsonl", "--tokenizer", workshop.tokenizer, "--row-length", length]
        status, out, err = bottega(*words, "--json")
        assert (status, json.loads(out)["usable"]) == (0 if usable else 2, usable), err
        status, out, err = bottega(*words)
        assert status == (0 if usable else 2) and ("Nothing here can be used as chat." in out) == (not usable)


def test_a_copied_recipe_tells_what_was_written_and_what_to_do_next(bottega: Call) -> None:
    Path("my own").mkdir()
    status, _, err = bottega("recipes", "copy", "codellama-axolotl", "my own/it.yaml")
    assert status == 0
    written = {line.removeprefix("written: ") for line in err.splitlines() if line.startswith("written: ")}
    assert written == {str(path) for path in Path("my own").rglob("*") if path.is_file()}
    assert "my own/examples/codellama-axolotl.yml" in written  # which only its description names
    assert "next: bottega run 'my own/it.yaml' --plan" in err
    Path("my own/examples/code.jsonl").write_text("{}\n")
    Path("my own/it.yaml").unlink()
    err = bottega("recipes", "copy", "codellama-axolotl", "my own/it.yaml")[2]
    assert "kept as it was: my own/examples/code.jsonl" in err and "written: my own/it.yaml" in err


def test_run_takes_a_file_of_axolotl_as_train_does(bottega: Call, workshop: Workshop) -> None:
    from bottega import verbs

    verbs.train(
        data=workshop.tokens, tokenizer=workshop.tokenizer, out=Path("base"), layers=1, hidden_size=64, row_length=64,
        tokens_per_step=256, tokens=256, threads=1, dtype="float32",
    )  # fmt: skip
    Path("talk.jsonl").write_text('{"instruction": "Keep?", "output": "The river keeps."}\n' * 8)
    lines = "base_model: base\ndatasets: [{path: talk.jsonl, type: alpaca}]\nadapter: lora\nmax_steps: 2\n"
    lines += "lora_target_linear: true\nlora_r: 4\n"
    Path("axolotl.yml").write_text(lines + "output_dir: made\nflash_attention: true\nlearning_rate: 1e-3\n")
    configs = []
    for verb in ("train", "run"):
        status, out, err = bottega(verb, "axolotl.yml", "--plan", "--json")
        assert status == 0, err
        assert "Settings of Axolotl" in err and "flash_attention" in err
        found = json.loads(out)
        configs.append(found["config"] if verb == "train" else found[0]["config"])
    assert configs[0] == configs[1] and (configs[0]["adapter"]["r"], configs[0]["out"]) == (4, "made")
    Path("axolotl.yml").write_text(lines + "neftune_noise_alpha: 5\n")
    status, _, err = bottega("run", "axolotl.yml")
    assert status == 2 and "neftune_noise_alpha" in err and not Path("workspace").exists()
    Path("plain.yml").write_text("stage: sft\n")
    status, _, err = bottega("run", "plain.yml")
    assert status == 2 and "is not a recipe" in err
    status, _, err = bottega("run", "sft-lora", "r=3")
    assert status == 2 and ("no parameter 'r'" in err)
