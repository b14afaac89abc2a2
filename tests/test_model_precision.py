"""The cost of bfloat16 is measured and said where `auto` chose it, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bottega import verbs
from bottega.core import machine
from bottega.generate.generator import Generator
from bottega.model.precision import divergence
from conftest import Workshop

SETTINGS: dict[str, Any] = {
    "layers": 1, "hidden_size": 64, "row_length": 64, "tokens_per_step": 256, "tokens": 4 * 256, "threads": 1,
}  # fmt: skip


def test_divergence_is_kl() -> None:
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.25, 0.25]])
    expected = (p * (p / q).log()).sum()
    assert divergence(p.log(), q.log()) == pytest.approx(float(expected)) and divergence(p.log(), p.log()) == 0.0


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_auto_says_what_bfloat16_costs(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottega.core.progress import Quiet

    monkeypatch.setattr(machine, "_cpu", lambda: ("a processor", ("avx512_bf16",)))
    said = Said()
    quiet = Quiet()
    monkeypatch.setattr(quiet, "say", said.say, raising=False)
    files = {"data": workshop.tokens, "tokenizer": workshop.tokenizer}
    data = verbs.train(**files, out=tmp_path / "auto", reporter=quiet, **SETTINGS)
    assert 0 < data["bfloat16_kl"] < 0.05
    assert any("nats of KL against float32" in line for line in said.lines)
    asked = verbs.train(**files, out=tmp_path / "asked", dtype="float32", **SETTINGS)
    assert "bfloat16_kl" not in asked
    # The stored weights are float32, and those are never narrowed; a model stored in bfloat16 is computed in it.
    assert Generator.load(tmp_path / "auto", threads=1).precision_note == ""
    from dataclasses import replace

    from bottega.checkpoint.folder import ModelFolder
    from bottega.checkpoint.writer import write_model_files, write_tensors
    from bottega.tokenizer.files import write_tokenizer

    folder, half = ModelFolder.open(tmp_path / "auto"), tmp_path / "half"
    write_tensors(half, {name: tensor.load().bfloat16() for name, tensor in folder.tensors.items()})
    write_tokenizer(folder.path, half)
    write_model_files(half, replace(folder.config, dtype="bfloat16"))
    note = Generator.load(half, threads=1).precision_note
    assert "nats of KL" in note and "not measured" not in note
    assert Generator.load(half, threads=1, dtype="float32").precision_note == ""
