"""Adapters in training: what moves, at which rate, in which precision, on a quantised base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import load_adapter_into, save_adapter
from bottega.model.adapter_targets import trainable_parameters
from bottega.model.inference import prepare_for_inference
from bottega.model.load import load_decoder
from bottega.model.lora import (
    adapter_off,
    adapter_parameters,
    add_adapter,
    learning_rate_factors,
)
from bottega.model.quantised import QuantisedLinear, quantise_base
from bottega.train.loss import linear_cross_entropy
from lora_models import IDS, TIED, Bases, adapted, close, shake

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory)


def test_training_moves_what_is_to_move_and_nothing_else(bases: Bases) -> None:
    """Every kind of change at once learns a few tokens by heart through the loop's own loss, and the base stays."""
    decoder = adapted(bases(), use_dora=True, new_tokens=(5, 6), modules_to_save=("norm",), dropout=0.1, r=8)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    parameters = adapter_parameters(decoder)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=1e-2)
    ids, losses = torch.tensor([[5, 6, 5, 6, 9, 9, 5, 6, 9, 5, 5, 6]]), []
    decoder.train()
    torch.manual_seed(0)  # of what is dropped
    for _ in range(90):
        hidden = decoder.hidden(ids[:, :-1])[0]
        loss = linear_cross_entropy(hidden, decoder.lm_head.weight, ids[0, 1:]) / 11
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.25 * losses[0]
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in parameters), name


def test_rows_have_the_gradient_of_the_whole_matrix(bases: Bases) -> None:
    """Through embedding and (tied) head; by the module, and by the weight that the fused loss takes."""
    for config in (dict[str, Any](), TIED):
        base = bases(**config)
        decoder, whole = adapted(base, new_tokens=(5, 60)), load_decoder(base)
        ids = torch.tensor([[5, 60, 5, 7, 60, 8]])
        whole(ids).square().mean().backward()
        for by_weight in (False, True):
            for parameter in adapter_parameters(decoder).values():
                parameter.grad = None
            hidden = decoder.hidden(ids)
            logits = hidden @ decoder.lm_head.weight.T if by_weight else decoder.logits(hidden)
            logits.square().mean().backward()
            for path in ("model.embed_tokens", "lm_head"):
                rows: Any = decoder.get_submodule(path)
                gradient = whole.get_submodule(path).weight.grad
                assert isinstance(gradient, Tensor) and close(rows.rows["default"].grad, gradient[[5, 60]], 1e-5)


def test_lora_plus_raises_the_rate_of_b(bases: Bases) -> None:
    factors = learning_rate_factors(adapted(bases(), lora_plus_ratio=16.0, use_dora=True, new_tokens=(3,)))
    assert {name for name, factor in factors.items() if factor == 16.0} == {n for n in factors if n.endswith(".B")}
    assert set(factors.values()) == {1.0, 16.0} and len(factors) == 14 * 3 + 2


def test_dropout_only_in_training(bases: Bases) -> None:
    decoder = adapted(bases(), dropout=0.5)
    shake(decoder)
    with torch.no_grad():
        assert torch.equal(decoder(IDS), decoder(IDS))
        decoder.train()
        assert not torch.equal(decoder(IDS), decoder(IDS))


def test_a_16_bit_base_has_wide_adapters(bases: Bases, tmp_path: Path) -> None:
    """A, B, rows and copies are float32; what passes through the layers is bfloat16 as before."""
    decoder = load_decoder(bases(), dtype=torch.bfloat16)
    settings = AdapterSettings.parse({"r": 4, "use_dora": True, "new_tokens": [4], "modules_to_save": ["norm"]})
    add_adapter(decoder, settings, torch.Generator().manual_seed(0))
    shake(decoder)
    assert {parameter.dtype for parameter in adapter_parameters(decoder).values()} == {torch.float32}
    wide = load_decoder(bases())
    add_adapter(wide, settings, torch.Generator().manual_seed(0))
    shake(wide)
    with torch.no_grad():
        hidden = decoder.hidden(IDS)
        assert hidden.dtype == decoder.dtype == decoder.lm_head.weight.dtype == torch.bfloat16
        assert close(decoder(IDS).float(), wide(IDS), 0.05)
    save_adapter(decoder, tmp_path, bases())
    with torch.autocast("cpu", torch.bfloat16):
        assert close(wide(IDS).float(), decoder(IDS).float(), 0.1)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_module_that_is_trained_whole(kind: Any, bases: Bases, tmp_path: Path) -> None:
    """Its copy begins as what the base reads back, and is trained and written like any other."""
    decoder = load_decoder(bases())
    quantise_base(decoder, kind)
    with torch.no_grad():
        plain = decoder(IDS)
    settings = {"r": 4, "base": kind, "target_modules": "v_proj", "modules_to_save": ["q_proj"]}
    info = add_adapter(decoder, AdapterSettings.parse(settings), torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert close(decoder(IDS), plain)
    assert info.trainable == trainable_parameters(decoder.config, info.settings)
    shake(decoder)
    save_adapter(decoder, tmp_path, bases())
    again = load_decoder(bases())
    quantise_base(again, kind)
    load_adapter_into(again, tmp_path)
    with torch.no_grad():
        assert close(again(IDS), decoder(IDS)) and not close(decoder(IDS), plain)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_on_a_quantised_base(kind: Any, bases: Bases, tmp_path: Path) -> None:
    """QLoRA: equal to the adapter on the dequantised weights; the reference is the quantised base."""
    for values in ({}, {"use_dora": True}):
        decoder, dense = load_decoder(bases()), load_decoder(bases())
        quantise_base(decoder, kind)
        settings = AdapterSettings.parse({"r": 4, "base": kind, **values})
        with torch.no_grad():
            plain = decoder(IDS)
            for name, module in decoder.named_modules():
                if isinstance(module, QuantisedLinear):
                    dense.get_parameter(f"{name}.weight").copy_(module.dense_weight())
        for each in (decoder, dense):
            add_adapter(each, settings, torch.Generator().manual_seed(0))
            shake(each)
        with torch.no_grad():
            assert close(decoder(IDS), dense(IDS))
            with adapter_off(decoder):
                assert torch.equal(decoder(IDS), plain)
        decoder(IDS).square().mean().backward()
        dense(IDS).square().mean().backward()
        pairs = zip(adapter_parameters(decoder).values(), adapter_parameters(dense).values(), strict=True)
        grads = [(one.grad, other.grad) for one, other in pairs]
        assert all(one is not None and other is not None and close(one, other, 1e-4) for one, other in grads)
        save_adapter(decoder, tmp_path, bases())
        assert json.loads((tmp_path / "bottega.json").read_text())["rounding"] == kind
    with pytest.raises(UserError, match="quantised already"):
        quantised = load_decoder(bases())
        quantise_base(quantised, kind)
        add_adapter(quantised, AdapterSettings(r=4, init="pissa"), torch.Generator().manual_seed(0))


def test_the_generation_engine_takes_an_adapted_decoder(bases: Bases) -> None:
    """Its fused layers read the weights as they are with the adapter."""
    decoder = adapted(bases(), new_tokens=(3,))
    shake(decoder)
    with torch.no_grad():
        wanted = decoder(IDS)
        assert close(prepare_for_inference(decoder)(IDS), wanted)
