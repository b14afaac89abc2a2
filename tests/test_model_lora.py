"""Adapters in the decoder: equal to peft's in values and gradients, switched, saved, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import load_adapter_into, save_adapter
from bottega.model.adapter_targets import trainable_parameters
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder, with_weights
from bottega.model.lora import (
    activate,
    adapter_config,
    adapter_info,
    adapter_off,
    adapter_on,
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    merged_weights,
)
from bottega.model.low_rank_product import low_rank_product
from bottega.model.principal import principal_part
from lora_models import IDS, TIED, Bases, adapted, close, shake

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

FAMILIES = [
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "gpt2",
    "gpt_neox", "bloom", "olmo2", "smollm3",
]  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rslora": ("llama", {}, {"use_rslora": True}),
    "patterns": ("llama", {}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"mlp.up_proj": 3.0}}),
    "pissa with patterns": ("llama", {}, {"init": "pissa", "rank_pattern": {"q_proj": 2}, "use_rslora": True}),
    "pissa, exactly": ("llama", {}, {"init": "pissa", "pissa_iterations": 0, "alpha": 3.0}),
    "some layers": ("llama", {}, {"layers_to_transform": [1]}),
    "a pattern of paths": ("llama", {}, {"target_modules": r".*\.1\.mlp\.(up|down)_proj"}),
    "one name": ("llama", {}, {"target_modules": "v_proj", "exclude_modules": "layers.0.self_attn.v_proj"}),
    "embedding and head": ("llama", {}, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "new tokens": ("llama", {}, {"new_tokens": [5, 90, 7]}),
    "new tokens, tied": ("llama", TIED, {"new_tokens": [5, 90, 7]}),
    "new tokens of gpt2": ("gpt2", {}, {"new_tokens": [3, 4]}),
    "new tokens of gpt_neox": ("gpt_neox", {}, {"new_tokens": [3, 4]}),
    "whole modules": ("llama", {}, {"modules_to_save": ["lm_head", "norm", "embed_tokens"]}),
    "whole modules, tied": ("llama", TIED, {"modules_to_save": ["lm_head"]}),
    "whole modules of gpt2": ("gpt2", {}, {"modules_to_save": ["embed_tokens", "ln_f"], "target_modules": "c_fc"}),
    "a fused module as a whole": ("gpt2", {}, {"modules_to_save": ["c_attn"], "target_modules": "c_fc"}),
    "head of gpt_neox": ("gpt_neox", {}, {"modules_to_save": ["lm_head"], "target_modules": ["dense"]}),
    "experts": ("qwen3_moe", {}, {"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}),
    "experts of mixtral": ("mixtral", {}, {"target_modules": ["w1", "w2", "w3"]}),
    **{family: (family, {}, {}) for family in FAMILIES},
    **{f"{family}, dora": (family, {}, {"use_dora": True}) for family in ("llama", "phi3", "gpt2", "gpt_neox")},
    **{f"{family}, pissa": (family, {}, {"init": "pissa"}) for family in ("llama", "phi3", "gpt2", "bloom")},
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_peft(kind: str, bases: Bases, tmp_path: Path) -> None:
    """Begins as the base, is off when off; peft, the reader, a continued training and a merge compute the same."""
    family, config, values = KINDS[kind]
    base = bases(family, **config)
    plain, decoder = load_decoder(base), adapted(base, **values)
    with torch.no_grad():
        untouched = plain(IDS)
        assert close(decoder(IDS), untouched, 1e-6)
        shake(decoder)
        ours = decoder(IDS)
        assert (ours - untouched).abs().max() > 1e-2 * untouched.abs().max()
        with adapter_off(decoder):
            assert close(decoder(IDS), untouched, 1e-6)
        save_adapter(decoder, tmp_path, base)
        theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path)
        assert close(ours, theirs.eval()(IDS).logits)
        assert close(load_decoder(ModelFolder.open(base, [tmp_path]))(IDS), ours)
        again = load_decoder(base)
        load_adapter_into(again, tmp_path)
        assert close(again(IDS), ours)
        with torch.device("meta"):
            merged = Decoder(decoder.config)
        assert close(with_weights(merged, merged_weights(decoder))(IDS), ours)
    count = sum(parameter.numel() for parameter in adapter_parameters(decoder).values())
    settings = adapter_info(decoder).settings
    assert adapter_info(decoder).trainable == count == trainable_parameters(decoder.config, settings)
    assert count == sum(p.numel() for p in decoder.parameters() if p.requires_grad)


@pytest.mark.parametrize("values", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
def test_gradients_equal_pefts(values: dict[str, Any], bases: Bases, tmp_path: Path) -> None:
    base = bases()
    decoder = adapted(base, **values)
    shake(decoder)
    save_adapter(decoder, tmp_path, base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path, is_trainable=True).eval()
    decoder(IDS).square().mean().backward()
    theirs(IDS).logits.square().mean().backward()
    wanted = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    # The gradients stand under the names of the files when they take the parameters' place.
    with torch.no_grad():
        for parameter in adapter_parameters(decoder).values():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    found = adapter_tensors(decoder)
    wanted = {name.replace("magnitude_vector.weight", "magnitude_vector"): grad for name, grad in wanted.items()}
    assert found.keys() == wanted.keys() and len(found) >= 28
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    assert all((found[name] - wanted[name]).abs().max() <= 1e-5 * largest for name in found)
    assert all(p.grad is None for p in decoder.parameters() if not p.requires_grad)


def test_one_weight_by_hand(bases: Bases) -> None:
    """The formulas of the module's docstring on one layer, in float64."""
    x = torch.randn(3, 32, dtype=torch.float64)
    for values, scale in (({"alpha": 6.0}, 1.5), ({"alpha": 6.0, "use_rslora": True}, 3.0), ({"use_dora": True}, 2.0)):
        decoder = load_decoder(bases(), dtype=torch.float64)
        add_adapter(decoder, AdapterSettings.parse({"r": 4, **values}), torch.Generator().manual_seed(0))
        shake(decoder)
        layer: Any = decoder.get_submodule("model.layers.0.mlp.up_proj")
        change, weight = layer.adapters["default"], layer.base.weight
        summed = weight + scale * change.B @ change.A
        if "use_dora" in values:
            summed = change.magnitude[:, None] * summed / summed.norm(dim=1, keepdim=True)
        assert close(layer(x), x @ summed.T, 1e-12) and close(layer.weight, summed, 1e-12)


def test_the_product_in_one_step() -> None:
    """Its gradients by finite differences; in autocast those of autograd's own way."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    x, weight, bias, down, up = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    for each in (x, down, up):
        each.requires_grad_(True)
    for b in (bias, None):

        def of_free(x: Tensor, down: Tensor, up: Tensor, b: Tensor | None = b) -> Tensor:
            return low_rank_product(x, weight, b, down, up, 1.7)

        torch.autograd.gradcheck(of_free, (x, down, up))
    ours, wanted = [], []
    for found, product in ((ours, low_rank_product), (wanted, _by_parts)):
        parts = [each.detach().float().requires_grad_(each.requires_grad) for each in (x, weight, bias, down, up)]
        with torch.autocast("cpu", torch.bfloat16):
            out = product(parts[0], parts[1], parts[2], parts[3], parts[4], 1.7)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
        found += [part.grad for part in parts if part.requires_grad]
    assert all(one.dtype == torch.float32 and close(one, other, 0.02) for one, other in zip(ours, wanted, strict=True))


def _by_parts(x: Tensor, weight: Tensor, bias: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    linear = nn.functional.linear
    return linear(x, weight, bias) + scale * linear(linear(x, down), up)


def test_principal_part() -> None:
    matrix = torch.randn(40, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :6] * values[:6]) @ right[:6]
    for iterations in (0, 24):
        up, down = principal_part(matrix, 6, iterations, torch.Generator().manual_seed(1))
        assert close(up @ down, best, 1e-4 if iterations else 1e-12)
        assert torch.allclose(up.norm(dim=0), values[:6].sqrt(), rtol=1e-4)  # shared between the two
        assert torch.allclose(down.norm(dim=1), values[:6].sqrt(), rtol=1e-4)


def test_pissa_takes_the_principal_part_from_the_base(bases: Bases) -> None:
    base = bases()
    decoder = adapted(base, init="pissa", pissa_iterations=0)
    layer: Any = decoder.get_submodule("model.layers.0.self_attn.o_proj")
    weight = load_decoder(base).get_submodule("model.layers.0.self_attn.o_proj").weight.double()
    left, values, right = torch.linalg.svd(weight)
    assert close(layer.base.weight.double(), (left[:, 4:] * values[4:]) @ right[4:], 1e-5)
    data = adapter_config(decoder, "base")
    assert (data["r"], data["lora_alpha"]) == (8, 8)  # twice the rank, the same scale
    with pytest.raises(UserError, match="no 64 singular directions"):
        adapted(base, init="pissa", r=64)


def test_several_adapters_on_one_base(bases: Bases, tmp_path: Path) -> None:
    """Each computes what it would alone, whatever else is on the base; PiSSA changes the base under the others."""
    base = bases()
    principal = {"init": "pissa", "target_modules": ["q_proj", "up_proj"]}
    kinds: dict[str, dict[str, Any]] = {"plain": {}, "principal": principal, "dora": {"use_dora": True}}
    together = load_decoder(base)
    for name, values in kinds.items():
        settings = AdapterSettings.parse({"r": 4, "name": name, **values})
        add_adapter(together, settings, torch.Generator().manual_seed(1))
        shake(together, name)
    with torch.no_grad():
        outputs = []
        for name, values in kinds.items():
            alone = adapted(base, **values)
            shake(alone)
            with adapter_on(together, name):
                outputs.append(together(IDS))
                assert close(outputs[-1], alone(IDS))
                save_adapter(together, tmp_path / name, base, name=name)
            assert close(load_decoder(ModelFolder.open(base, [tmp_path / name]))(IDS), outputs[-1])
        assert not close(outputs[0], outputs[1], 1e-2)
        with adapter_off(together):
            assert close(together(IDS), load_decoder(base)(IDS), 1e-6)
    activate(together, "principal")
    wanted = set(map(id, adapter_parameters(together, "principal").values()))
    assert {id(p) for p in together.parameters() if p.requires_grad} == wanted
    with pytest.raises(UserError, match="has an adapter 'plain' already"):
        add_adapter(together, AdapterSettings(name="plain"), torch.Generator())
    with pytest.raises(UserError, match="no adapter 'other'"):
        activate(together, "other")
