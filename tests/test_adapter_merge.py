"""`bottega adapter merge`: what is written equals what was trained, and what it changes is measured rightly."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bottega import verbs
from bottega.checkpoint.folder import ModelFolder
from bottega.core.errors import UserError
from bottega.model.adapter_config import AdapterSettings
from bottega.model.adapter_folder import save_adapter
from bottega.model.decoder import Decoder
from bottega.model.load import load_decoder
from bottega.model.lora import adapter_off, adapter_parameters, add_adapter
from bottega.model.quantised import quantise_base
from bottega.model.streamed import streamed_hidden

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2: dict[str, Any] = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 96}


def make_base(
    folder: Path, dtype: torch.dtype = torch.float32, *, model_type: str = "llama", **values: Any
) -> Path:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **values})
    transformers.AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder)
    return folder


def train_adapter(model: Path, folder: Path, seed: int = 1, **values: Any) -> Decoder:
    """An adapter with random values, as training might leave it, written to `folder`; returns decoder and adapter."""
    decoder, generator = load_decoder(model), torch.Generator().manual_seed(seed)
    settings = AdapterSettings.parse({"r": 4, **values})
    if settings.base != "none":
        quantise_base(decoder, settings.base, settings.double_quant)
    add_adapter(decoder, settings, generator)
    with torch.no_grad():
        for parameter in adapter_parameters(decoder).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(decoder, folder, model)
    return decoder


IDS = torch.randint(97, (2, 24), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "values",
    [{}, {"use_dora": True}, {"init": "pissa"}, {"new_tokens": (3, 96)}, {"modules_to_save": ("lm_head", "norm")}],
    ids=str,
)
def test_merged_is_what_was_trained(values: dict[str, Any], tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    decoder = train_adapter(base, tmp_path / "adapter", **values)
    found = verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged")  # the base by its name
    with torch.no_grad():
        wanted = decoder(IDS)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(IDS).logits
        assert (load_decoder(tmp_path / "merged")(IDS) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert (theirs - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        with adapter_off(decoder):
            assert (decoder(IDS) - wanted).abs().max() > 0.05 * wanted.abs().max()
    assert list(found["drift"]) == ["original"] and found["drift"]["original"]["kl_mean"] < 1e-9
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "base_model: base" in card and "adapter, merged into its weights as they are" in card


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_has_two_targets(kind: str, tmp_path: Path) -> None:
    """Into the dequantised base: the trained model itself; into the original: a better base, another model."""
    base = make_base(tmp_path / "base")
    decoder = train_adapter(base, tmp_path / "adapter", base=kind)
    with torch.no_grad():
        wanted = decoder(IDS)
    figures = {}
    for into in ("original", "dequantised"):
        out = tmp_path / into
        figures[into] = verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), into=into, out=out, measure=64)
        with torch.no_grad():
            change = (load_decoder(out)(IDS) - wanted).abs().max() / wanted.abs().max()
        assert (change < 1e-5) == (into == "dequantised")
    assert figures["original"]["drift"] == figures["dequantised"]["drift"]  # both are measured, whichever is written
    drift = figures["original"]["drift"]
    assert drift["dequantised"]["kl_mean"] < 1e-9 < 1e-8 < drift["original"]["kl_mean"]
    tensors = [load_file(tmp_path / into / "model.safetensors") for into in ("original", "dequantised")]
    plain = load_file(base / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert all(torch.equal(each[name], plain[name]) for each in tensors)


def test_the_figures_are_those_of_whole_models(tmp_path: Path) -> None:
    """KL, agreement and logits recomputed from two models in memory."""
    base = make_base(tmp_path / "base")
    decoder = train_adapter(base, tmp_path / "adapter", base="nf4")
    found = verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged", measure=40)
    ids = torch.randint(97, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained, merged = decoder(ids)[0], load_decoder(tmp_path / "merged")(ids)[0]
    p, q = trained.double().log_softmax(-1), merged.double().log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    figures = found["drift"]["original"]
    assert figures["kl_mean"] == pytest.approx(float(kl.mean()), rel=1e-3)
    assert figures["kl_p99"] == pytest.approx(float(kl.quantile(0.99)), rel=1e-3)
    assert figures["top1_agreement"] == float((trained.argmax(-1) == merged.argmax(-1)).double().mean())
    assert figures["largest_logit_change"] == pytest.approx(float((trained - merged).abs().max()), rel=1e-3)
    assert figures["tokens"] == 40


def test_several_adapters_with_weights_equal_pefts_sum(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    names = ("a", "b")
    for seed, name in enumerate(names):
        train_adapter(base, tmp_path / name, seed=seed, r=4 + 2 * seed)
    folders = tuple(str(tmp_path / name) for name in names)
    verbs.adapter_merge(adapter=folders, weights=(0.5, 1.25), out=tmp_path / "merged", measure=0)
    model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folders[0], "a")
    model.load_adapter(folders[1], "b")
    model.add_weighted_adapter(["a", "b"], [0.5, 1.25], "both", combination_type="cat")
    model.set_adapter("both")
    with torch.no_grad():
        wanted, ours = model.eval()(IDS).logits, load_decoder(tmp_path / "merged")(IDS)
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_16_bit_base_stays_so_and_the_rounding_is_measured(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", torch.bfloat16)
    train_adapter(base, tmp_path / "adapter")
    found = verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged")
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert 0 < found["drift"]["original"]["kl_mean"] < 1e-3
    wide = verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), dtype="float32", out=tmp_path / "wide")
    assert wide["drift"]["original"]["kl_mean"] < 1e-9


@pytest.mark.parametrize("model_type", ["gpt2", "phi3", "gpt_neox"])
def test_fused_families(model_type: str, tmp_path: Path) -> None:
    """Rounding cuts a fused matrix into the layers that a quantised base has."""
    base = make_base(tmp_path / "base", model_type=model_type, **(GPT2 if model_type == "gpt2" else {}))
    decoder = train_adapter(base, tmp_path / "adapter", base="nf4")
    verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), into="dequantised", out=tmp_path / "merged", measure=16)
    with torch.no_grad():
        wanted = decoder(IDS)
        assert (load_decoder(tmp_path / "merged")(IDS) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_another_base_is_refused_unless_forced(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    train_adapter(base, tmp_path / "adapter")
    torch.manual_seed(9)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(tmp_path / "other")
    settings = {"adapter": (str(tmp_path / "adapter"),), "model": str(tmp_path / "other"), "out": tmp_path / "merged"}
    with pytest.raises(UserError, match="is not the base that the adapter was trained on"):
        verbs.adapter_merge(**settings)
    assert not (tmp_path / "merged").exists()
    verbs.adapter_merge(**settings, force=True)
    # A card or a tokenizer beside the weights makes no other base.
    (base / "README.md").write_text("changed")
    verbs.adapter_merge(adapter=settings["adapter"], out=tmp_path / "same")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"into": "dequantised"}, "trained on the weights as they are"),
        ({"weights": (1.0, 2.0)}, "1 adapters need as many weights"),
        ({"model": "nowhere"}, "nowhere"),
        ({"data": Path("nowhere.txt")}, "nowhere.txt"),
    ],
)
def test_what_is_refused_before_anything_is_read(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    train_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    with pytest.raises(UserError, match=said):
        verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged", **values)


def test_a_base_that_has_moved_is_asked_for(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    train_adapter(base, tmp_path / "adapter")
    base.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="adapter's base") as error:
        verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged")
    assert "--model" in error.value.hint
    verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), model=str(tmp_path / "moved"), out=tmp_path / "merged")


def anonymous_bytes() -> int:
    """What this process holds beside mapped files."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def test_memory_is_that_of_a_few_tensors(tmp_path: Path) -> None:
    values: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 10, "vocab_size": 128}
    base = make_base(tmp_path / "base", **values)
    train_adapter(base, tmp_path / "adapter")
    size, largest = (base / "model.safetensors").stat().st_size, 4 * 512 * 1024
    verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "first", measure=32)  # imports, threads
    start, peak, done = anonymous_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_bytes() - start)
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    verbs.adapter_merge(adapter=(str(tmp_path / "adapter"),), out=tmp_path / "merged", measure=32)
    done.set()
    watcher.join()
    assert peak < 6 * largest < size / 2, f"{peak / 2**20:.0f} MiB for a model of {size / 2**20:.0f}"


def test_streamed_states_are_the_decoders(tmp_path: Path) -> None:
    sizes: dict[str, dict[str, Any]] = {"gpt2": GPT2, "gemma2": {"head_dim": 16}}
    for model_type, values in sizes.items():
        base = make_base(tmp_path / model_type, model_type=model_type, **values)
        folder = ModelFolder.open(base)
        with torch.no_grad():
            assert torch.equal(streamed_hidden(folder.config, folder.tensors, IDS), load_decoder(base).hidden(IDS))
