"""Adapters in the decoder: equal to peft's in values and gradients, switched, saved, loaded, trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import load_adapter_into, save_adapter
from bottega.model.adapter_targets import trainable_parameters
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
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
    learning_rate_factors,
    merged_weights,
)
from bottega.model.low_rank_product import low_rank_product
from bottega.model.principal import principal_part
from bottega.model.quantised import QuantisedLinear, quantise_base
from bottega.train.loss import linear_cross_entropy

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LLAMA = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": {**LLAMA, "head_dim": 8},
    "gemma3_text": {**LLAMA, "head_dim": 8},
    **{family: {**LLAMA, **EXPERTS} for family in ("mixtral", "qwen2_moe", "qwen3_moe")},
}
FAMILIES = [
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "gpt2",
    "gpt_neox", "bloom", "olmo2", "smollm3",
]  # fmt: skip
TIED = {"tie_word_embeddings": True}
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
IDS = torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Random bases by family, each made once."""
    made: dict[str, Path] = {}

    def base(family: str = "llama", **values: Any) -> Path:
        key = f"{family} {sorted(values.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("base") / family
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(family, **{**SIZES.get(family, LLAMA), **values})
            model = transformers.AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():  # biases and norms too, and large enough to matter
                parameter.data += 0.05 * torch.randn_like(parameter)
            model.save_pretrained(made[key])
        return made[key]

    return base


def adapted(base: Path, seed: int = 1, **values: Any) -> Decoder:
    decoder = load_decoder(base)
    add_adapter(decoder, AdapterSettings.parse({"r": 4, **values}), torch.Generator().manual_seed(seed))
    return decoder


def shake(decoder: Decoder, name: str | None = None, seed: int = 2) -> None:
    """Move the adapter away from where it began."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(decoder, name).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def close(ours: Tensor, wanted: Tensor, limit: float = 1e-5) -> bool:
    return bool((ours - wanted).abs().max() <= limit * wanted.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_peft(kind: str, bases: Any, tmp_path: Path) -> None:
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
def test_gradients_equal_pefts(values: dict[str, Any], bases: Any, tmp_path: Path) -> None:
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


def test_one_weight_by_hand(bases: Any) -> None:
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


def test_pissa_takes_the_principal_part_from_the_base(bases: Any) -> None:
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


def test_several_adapters_on_one_base(bases: Any, tmp_path: Path) -> None:
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


def test_training_moves_what_is_to_move_and_nothing_else(bases: Any) -> None:
    """Every kind of change at once learns a few tokens by heart through the loop's own loss, and the base stays."""
    decoder = adapted(bases(), use_dora=True, new_tokens=(5, 6), modules_to_save=("norm",), dropout=0.1, r=8)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    parameters = adapter_parameters(decoder)
    optimizer = torch.optim.Adam(list(parameters.values()), lr=1e-2)
    ids, losses = torch.tensor([[5, 6, 5, 6, 9, 9, 5, 6, 9, 5, 5, 6]]), []
    decoder.train()
    for _ in range(60):
        hidden = decoder.hidden(ids[:, :-1])[0]
        loss = linear_cross_entropy(hidden, decoder.lm_head.weight, ids[0, 1:]) / 11
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.25 * losses[0]
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in parameters), name


def test_rows_have_the_gradient_of_the_whole_matrix(bases: Any) -> None:
    """Through embedding and (tied) head; by the module, and by the weight that the fused loss takes."""
    for config in ({}, TIED):
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


def test_lora_plus_raises_the_rate_of_b(bases: Any) -> None:
    factors = learning_rate_factors(adapted(bases(), lora_plus_ratio=16.0, use_dora=True, new_tokens=(3,)))
    assert {name for name, factor in factors.items() if factor == 16.0} == {n for n in factors if n.endswith(".B")}
    assert set(factors.values()) == {1.0, 16.0} and len(factors) == 14 * 3 + 2


def test_dropout_only_in_training(bases: Any) -> None:
    decoder = adapted(bases(), dropout=0.5)
    shake(decoder)
    with torch.no_grad():
        assert torch.equal(decoder(IDS), decoder(IDS))
        decoder.train()
        assert not torch.equal(decoder(IDS), decoder(IDS))


def test_a_16_bit_base_has_wide_adapters(bases: Any, tmp_path: Path) -> None:
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
def test_a_quantised_module_that_is_trained_whole(kind: Any, bases: Any, tmp_path: Path) -> None:
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
def test_on_a_quantised_base(kind: Any, bases: Any, tmp_path: Path) -> None:
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


def test_the_generation_engine_takes_an_adapted_decoder(bases: Any) -> None:
    """Its fused layers read the weights as they are with the adapter."""
    decoder = adapted(bases(), new_tokens=(3,))
    shake(decoder)
    with torch.no_grad():
        wanted = decoder(IDS)
        assert close(prepare_for_inference(decoder)(IDS), wanted)


@pytest.mark.parametrize(
    ("family", "values", "said"),
    [
        ("phi3", {"target_modules": ["q_proj"]}, "held in qkv_proj"),
        ("gpt2", {"target_modules": "v_proj"}, "held in c_attn"),
        ("llama", {"target_modules": ["q_prj"]}, "q_proj"),
        ("llama", {"target_modules": r".*\.7\..*"}, "names no module"),
        ("llama", {"modules_to_save": ["nrm"]}, "norm"),
        ("llama", {"new_tokens": [97]}, "no row of an embedding of 97"),
        ("llama", {"new_tokens": [3], "modules_to_save": ["embed_tokens"]}, "trained whole"),
        ("llama", {"modules_to_save": ["q_proj"]}, "adapted in another way"),
        ("llama tied", {"target_modules": ["lm_head"]}, "embedding and output layer in one"),
    ],
)
def test_settings_that_a_model_cannot_have(family: str, values: dict[str, Any], said: str, bases: Any) -> None:
    base = bases(**TIED) if family == "llama tied" else bases(family)
    with pytest.raises(UserError) as error:
        adapted(base, **values)
    assert said in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"init": "pissa", "use_dora": True}, "do not go together"),
        ({"init": "pissa", "dropout": 0.1}, "dropout"),
        ({"init": "pissa", "type": "qlora"}, "base: none"),
        ({"target_modules": []}, "nothing to train"),
        ({"target_modules": "(q_proj"}, "no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "rank"),
        ({"alpha_pattern": {"q_proj": -1.0}}, "positive"),
        ({"new_tokens": [-1]}, "not negative"),
        ({"rang": 3}, "unknown setting 'rang'"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        AdapterSettings.parse(values)
    assert AdapterSettings.parse({"type": "qlora"}).base == "nf4"


def test_planning_needs_no_weights(bases: Any) -> None:
    """Counts from the config alone; `auto` stands for the tokens that a recipe added."""
    config = ModelConfig.read(bases())
    by_hand = 2 * 8 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert trainable_parameters(config, AdapterSettings(r=8)) == by_hand
    auto = AdapterSettings(r=8, new_tokens="auto")
    assert trainable_parameters(config, auto, added=(95, 96)) == by_hand + 2 * 2 * 32
    decoder = load_decoder(bases())
    assert add_adapter(decoder, auto, torch.Generator(), added=(96, 95)).ids == (95, 96)
    assert isinstance(decoder.lm_head, nn.Module) and adapter_config(decoder, "x")["trainable_token_indices"] == {
        "embed_tokens": [95, 96],
        "lm_head": [95, 96],
    }


def test_the_card_and_the_config(bases: Any, tmp_path: Path) -> None:
    decoder = adapted(bases(), modules_to_save=("norm",))
    save_adapter(decoder, tmp_path / "adapter", bases())
    data = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    known = set(peft.LoraConfig().to_dict()) | {"peft_version"}
    assert data.keys() <= known, data.keys() - known
    assert data["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert data["modules_to_save"] == ["model.norm"] and data["base_model_name_or_path"] == str(bases())
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library\\_name" not in card and "library_name: peft" in card and "base_model: llama" in card
