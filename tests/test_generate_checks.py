"""Plans know the engine's settings: what cannot be obeyed is refused from headers, and memory counts what they add."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Raw

from bottega import verbs
from bottega.checkpoint.spec import ModelSpec
from bottega.core.errors import UserError
from bottega.core.plan import Specs
from bottega.generate.checks import engine_checks
from bottega.generate.config import Generate
from bottega.model.inference import prepare_for_inference
from conftest import Workshop
from test_generate_engine import decoder_of


def write(folder: Path, workshop: Workshop, **sizes: Any) -> Path:
    """A small model with the workshop's tokenizer."""
    settings = {"layers": 2, "hidden_size": 64, "row_length": 64, "tokens_per_step": 256, "tokens": 256, "threads": 1}
    verbs.train(data=workshop.tokens, tokenizer=workshop.tokenizer, out=folder, **settings | sizes)
    return folder / "model"


@pytest.fixture(scope="module")
def model(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("plan") / "model", workshop)


def checks(model: Path, **settings: Any) -> dict[str, tuple[bool, str]]:
    plan = verbs.plan("generate", model=str(model), prompt="The", **settings)
    return {check["name"]: (check["passed"], check["detail"]) for check in plan["checks"]}


def test_a_form_is_compiled_by_the_plan(model: Path, tmp_path: Path) -> None:
    assert checks(model, choice=["yes", "no"])["form"][0] and "form" not in checks(model)
    (tmp_path / "schema.json").write_text('{"type": "string", "minLength": 5, "maxLength": 2}')
    with pytest.raises(UserError, match="minLength"):
        checks(model, json_schema=str(tmp_path / "schema.json"))
    with pytest.raises(UserError, match=r"none\.json"):
        checks(model, json_schema=str(tmp_path / "none.json"))


def test_a_chat_template_is_wanted_for_chats_only(model: Path, tmp_path: Path) -> None:
    assert checks(model, chat=True)["chat template"] == (True, "is there")
    plain = Path(shutil.copytree(model, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "chat template" not in checks(plain)
    passed, detail = checks(plain, chat=True)["chat template"]
    assert not passed and "leave --chat out" in detail


def memory(model: Path, **settings: Any) -> int:
    return verbs.plan("generate", model=str(model), prompt="The", **settings)["cost"]["peak_memory"]


def test_a_draft_model_is_checked_before_anything_is_loaded(model: Path, workshop: Workshop, tmp_path: Path) -> None:
    draft = write(tmp_path / "draft", workshop, layers=1)
    how: dict[str, Any] = {"speculate": "draft", "draft_model": str(draft)}
    assert checks(model, **how)["draft model"][0]
    assert memory(model, **how) > memory(model)
    tokenizer = Raw.from_file(str(draft / "tokenizer.json"))
    tokenizer.add_tokens(["something else"])
    tokenizer.save(str(draft / "tokenizer.json"))
    passed, detail = checks(model, **how)["draft model"]
    assert not passed and "tokens" in detail
    with pytest.raises(UserError, match="nowhere"):
        checks(model, speculate="draft", draft_model=str(tmp_path / "nowhere"))


def test_weights_that_cannot_be_kept_so_are_refused(model: Path) -> None:
    assert checks(model, weights="int4")["weights"] == (True, "int4")
    assert not checks(model, weights="int4", device="cuda")["weights"][0]
    odd = ModelSpec.predict(decoder_of(hidden_size=80).config, tokenizer_hash="")
    (narrow,) = engine_checks(Generate(model="odd", prompt="", weights="int8"), "odd", odd, Specs())
    assert not narrow.passed and "rows of 80" in narrow.detail
    assert engine_checks(Generate(model="odd", prompt="", weights="bfloat16"), "odd", odd, Specs())[0].passed
    with pytest.raises(UserError, match="--weights bfloat16 needs"):
        prepare_for_inference(decoder_of().to(torch.float16), "bfloat16")


def test_settings_without_their_speculation_are_refused(model: Path) -> None:
    with pytest.raises(UserError, match="--max-drafts needs --speculate"):
        checks(model, max_drafts=4)
    assert not checks(model, speculate="early-exit", draft_layers=2)["draft layers"][0]
    assert checks(model, speculate="early-exit")["draft layers"][0]


def test_memory_counts_a_narrow_or_small_cache(model: Path) -> None:
    assert memory(model, cache_dtype="int8") < memory(model, cache_dtype="bfloat16") < memory(model)
    assert memory(model, cache_tokens=16) < memory(model)
