"""Every family: logits equal transformers', from its folder, whole, cached and padded; and transformers opens ours."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from bottega.checkpoint.config import ModelConfig, places
from bottega.checkpoint.families import FAMILIES
from bottega.checkpoint.folder import ModelFolder
from bottega.checkpoint.writer import write_model_files, write_tensors
from bottega.model.cache import KVCache
from bottega.model.decoder import Decoder
from bottega.model.inference import prepare_for_inference
from bottega.model.load import load_decoder, stored_tensors

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 97, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
PLAIN = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
BLOOM = {"vocab_size": 97, "hidden_size": 32, "n_layer": 4, "n_head": 4, "initializer_range": 0.2, "pad_token_id": 0}
QWEN_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.5, 4.0], "rope_theta": 10000.0,
    "original_max_position_embeddings": 64, "partial_rotary_factor": 0.5,
}  # fmt: skip

# name → model_type, the config's changes; every switch of every family is somewhere turned.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "llama, yarn": ("llama", {**SIZES, "rope_parameters": YARN}),
    "llama, yarn with mscale": ("llama", {**SIZES, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.4}}),
    "llama, dynamic": ("llama", {**SIZES, "max_position_embeddings": 32, "rope_parameters": {
        "rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}}),
    "mistral": ("mistral", {**SIZES, "sliding_window": 7, "head_dim": 12}),
    "mistral, no window": ("mistral", {**SIZES, "sliding_window": None}),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 9}),
    "qwen2": ("qwen2", SIZES),
    "qwen2, windows": ("qwen2", {**SIZES, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "qwen2 moe": ("qwen2_moe", {**SIZES, **QWEN_EXPERTS, "norm_topk_prob": False, "decoder_sparse_step": 2,
        "shared_expert_intermediate_size": 40, "use_sliding_window": True, "sliding_window": 6}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 moe": ("qwen3_moe", {**SIZES, **QWEN_EXPERTS, "mlp_only_layers": [1], "head_dim": 16}),
    "gemma2": ("gemma2", {**SIZES, "head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 20}),
    "gemma3": ("gemma3_text", {**SIZES, "head_dim": 12, "sliding_window": 6, "layer_types": None,
        "sliding_window_pattern": 3, "query_pre_attn_scalar": 20}),
    "phi3": ("phi3", {**SIZES, "sliding_window": 11, "tie_word_embeddings": False}),
    "phi3, longrope": ("phi3", {**SIZES, "original_max_position_embeddings": 64, "rope_parameters": LONG}),
    "gpt2": ("gpt2", GPT2),
    "gpt2, wider": ("gpt2", {**GPT2, "n_inner": 48, "activation_function": "relu", "tie_word_embeddings": False}),
    "gpt neox": ("gpt_neox", {**PLAIN, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}),
    "gpt neox, sequential": ("gpt_neox", {**PLAIN, "use_parallel_residual": False, "attention_bias": False}),
    "olmo2": ("olmo2", SIZES),
    "smollm3": ("smollm3", {**SIZES, "no_rope_layer_interval": 2}),
    "smollm3, windows": ("smollm3", {**SIZES, "use_sliding_window": True, "sliding_window": 6}),
    "bloom": ("bloom", BLOOM),
    "bloom, six heads": ("bloom", {**BLOOM, "n_head": 6, "hidden_size": 36}),
}  # fmt: skip
DTYPES = [pytest.param(torch.float64, 1e-10, id="float64"), pytest.param(torch.float32, 1e-5, id="float32")]


@cache
def oracle(name: str) -> Any:
    """transformers' model with random weights, in float64, taking no float32 where it should not."""
    model_type, values = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **values)
    config._experts_implementation = "eager"
    config._attn_implementation = "eager" if model_type in ("gemma2", "bloom") else "sdpa"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases too must differ from their neutral values
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        elif parameter.ndim == 3 or not parameter.any():  # experts and routers
            parameter.data = 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that transformers saved of each model, made once."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def folder(name: str) -> Path:
        path = root / name.replace(" ", "-")
        oracle(name).save_pretrained(path)
        return path

    return folder


@contextlib.contextmanager
def exact_softmax(dtype: torch.dtype) -> Iterator[None]:
    """transformers' eager attention takes its softmax in float32; for a comparison in float64 it must not."""
    plain = F.softmax

    def softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None, **rest: Any) -> torch.Tensor:
        return plain(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **rest)

    with pytest.MonkeyPatch.context() as patch:
        if dtype == torch.float64:
            patch.setattr(F, "softmax", softmax)
        yield


def expected_logits(name: str, ids: torch.Tensor, dtype: torch.dtype, **arguments: Any) -> torch.Tensor:
    model = copy.deepcopy(oracle(name)).to(dtype)
    eager = model.config._attn_implementation == "eager"
    with torch.no_grad(), exact_softmax(dtype) if eager else contextlib.nullcontext():
        return model(ids, **arguments).logits


def close(ours: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((ours - expected).abs().max() <= tolerance * expected.abs().max())


def test_every_family_is_here() -> None:
    assert {model_type for model_type, _ in MODELS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_logits_equal_transformers(name: str, dtype: torch.dtype, tolerance: float, folders: Any) -> None:
    decoder = load_decoder(folders(name), dtype=dtype)
    for length in (5, 70):
        ids = torch.randint(97, (3, length))
        with torch.no_grad():
            assert close(decoder(ids), expected_logits(name, ids, dtype), tolerance), length


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [[60], [40] + [1] * 20, [20, 1, 1, 30, 8]], ids=["whole", "tokens", "pieces"])
def test_cached_decoding_equals_full_recomputation(name: str, steps: list[int], folders: Any) -> None:
    decoder = load_decoder(folders(name), dtype=torch.float64)
    ids = torch.randint(97, (2, 60))
    cache_ = KVCache(decoder.config, 2, 60, torch.float64)
    with torch.no_grad():
        parts = [decoder(part, cache=cache_) for part in ids.split(steps, dim=1)]
        assert close(torch.cat(parts, 1), decoder(ids), 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_padded_rows_equal_transformers_and_rows_alone(name: str, folders: Any) -> None:
    """Whole and with a cache: what stands on the left of a row changes nothing."""
    decoder = load_decoder(folders(name), dtype=torch.float64)
    lengths, longest = torch.tensor([30, 17, 1]), 30
    padding, ids = longest - lengths, torch.randint(3, 97, (3, longest + 8))
    mask = torch.arange(longest + 8) >= padding.unsqueeze(1)
    places = (mask.long().cumsum(-1) - 1).clamp_min(0)
    positions = {} if MODELS[name][0] == "bloom" else {"position_ids": places}
    expected = expected_logits(name, ids, torch.float64, attention_mask=mask.long(), **positions)
    cache_ = KVCache(decoder.config, 3, longest + 8, torch.float64)
    with torch.no_grad():
        whole = decoder(ids, padding=padding)
        parts = [decoder(part, cache=cache_, padding=padding) for part in ids.split([longest, 1, 7], dim=1)]
        alone = [decoder(ids[row : row + 1, skip:])[0] for row, skip in enumerate(padding.tolist())]
    for found in (whole, torch.cat(parts, 1)):
        assert close(found[mask], expected[mask], 1e-10)
        if name != "llama, dynamic":  # its angles follow the longest row
            assert close(found[mask], torch.cat(alone), 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_packed_documents_equal_documents_apart(name: str, folders: Any) -> None:
    decoder = load_decoder(folders(name), dtype=torch.float64)
    segments = [19, 9, 9, 1, 4]
    ids = torch.randint(97, (1, sum(segments)))
    with torch.no_grad():
        apart = torch.cat([decoder(part) for part in ids.split(segments, dim=1)], dim=1)
        assert close(decoder(ids, segments=segments), apart, 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_prepared_for_inference_computes_the_same(name: str, folders: Any) -> None:
    plain, prepared = load_decoder(folders(name)), prepare_for_inference(load_decoder(folders(name)))
    ids = torch.randint(97, (4, 24))
    cache_ = KVCache(plain.config, 4, 24)
    with torch.no_grad():
        parts = [prepared(part, cache=cache_) for part in ids.split([10, *[1] * 14], dim=1)]
        assert close(torch.cat(parts, 1), plain(ids), 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_ours_opens_in_transformers(name: str, folders: Any, tmp_path: Path) -> None:
    """Through the decoder: what was cut and transposed on the way in is put together on the way out."""
    folder = ModelFolder.open(folders(name))
    decoder = load_decoder(folder, dtype=torch.float64)
    stored = stored_tensors(folder.config, decoder.state_dict())
    assert stored.keys() == folder.tensors.keys()
    assert all(torch.equal(tensor, folder.tensors[name].load()) for name, tensor in stored.items())
    write_tensors(tmp_path, stored)
    write_model_files(tmp_path, folder.config)
    assert ModelConfig.read(tmp_path) == folder.config
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert type(theirs).__name__ == folder.config.family.architecture == type(oracle(name)).__name__
    before, after = oracle(name).state_dict(), theirs.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    ids = torch.randint(97, (2, 40))
    theirs.set_attn_implementation(oracle(name).config._attn_implementation)
    theirs.config._experts_implementation = "eager"
    with torch.no_grad():
        assert close(theirs(ids).logits, oracle(name)(ids).logits, 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_transformers(name: str, folders: Any) -> None:
    config = ModelConfig.read(folders(name))
    parameters = sum(parameter.numel() for parameter in oracle(name).parameters())
    assert config.parameter_count() == parameters
    experts = config.switches.experts
    assert (config.active_parameter_count() < parameters) == (experts is not None)


@pytest.mark.parametrize("name", MODELS)
def test_the_layout_knows_the_decoders_shapes(name: str, folders: Any) -> None:
    config = ModelConfig.read(folders(name))
    held = {key: shape for place in places(config) for key, shape in place.held_shapes().items()}
    assert held == {key: tuple(parameter.shape) for key, parameter in Decoder(config).named_parameters()}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2", "qwen3 moe"])
def test_a_new_model_starts_near_the_uniform_loss(name: str, folders: Any) -> None:
    config = ModelConfig.read(folders(name))
    decoder = Decoder(config).initialise(torch.Generator().manual_seed(0))
    ids = torch.randint(97, (2, 30))
    with torch.no_grad():
        loss = F.cross_entropy(decoder(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert torch.isfinite(loss) and loss < 12


def test_names_without_the_models_prefix_are_known(folders: Any, tmp_path: Path) -> None:
    """The first GPT-2 and BLOOM files have no `transformer.`, and buffers that nobody needs."""
    from safetensors.torch import save_file

    stored = load_file(folders("gpt2") / "model.safetensors")
    tensors = {key.removeprefix("transformer."): value for key, value in stored.items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folders("gpt2") / "config.json").read_text())
    ids = torch.randint(97, (1, 9))
    with torch.no_grad():
        assert torch.equal(load_decoder(tmp_path)(ids), load_decoder(folders("gpt2"))(ids))


def test_the_language_model_of_a_model_that_sees_is_opened(folders: Any, tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    tensors = load_file(folders("gemma3") / "model.safetensors")
    named = {f"language_model.{key}": value for key, value in tensors.items()}
    save_file({**named, "vision_tower.x.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    text = json.loads((folders("gemma3") / "config.json").read_text())
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {}, "eos_token_id": [2, 7]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelConfig.read(tmp_path).model_type == "gemma3_text"
    ids = torch.randint(97, (1, 9))
    with torch.no_grad():
        assert torch.equal(load_decoder(tmp_path)(ids), load_decoder(folders("gemma3"))(ids))
