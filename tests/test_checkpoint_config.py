"""config.json: both spellings, transformers as oracle, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from bottega.checkpoint.config import ModelConfig, tensor_shapes
from bottega.core.errors import UserError

OLD: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def changed(**values: Any) -> ModelConfig:
    return ModelConfig.from_data({**OLD, **values})


def test_both_spellings_are_the_same_config():
    new = {k: v for k, v in OLD.items() if k not in ("rope_theta", "rope_scaling", "torch_dtype")}
    new |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "bfloat16"}
    assert ModelConfig.from_data(new) == ModelConfig.from_data(OLD)
    old = changed(rope_scaling={"type": "linear", "factor": 2.0})
    new["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert ModelConfig.from_data(new) == old
    assert old.rope_scaling == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"eos_token_id": [2, 3]},
        {"eos_token_id": None, "bos_token_id": None},
        {"pad_token_id": 0, "tie_word_embeddings": True},
        {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
    ],
)
def test_round_trip_and_transformers_reads_the_same(values: dict[str, Any], tmp_path: Path):
    config = changed(**values)
    assert ModelConfig.from_data(config.to_data()) == config
    (tmp_path / "config.json").write_text(json.dumps(config.to_data()))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(theirs, LlamaConfig)
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        assert getattr(theirs, name) == getattr(config, name)
    for name in ("num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"):
        assert getattr(theirs, name) == getattr(config, name)
    for name in ("attention_bias", "mlp_bias", "bos_token_id", "pad_token_id"):
        assert getattr(theirs, name) == getattr(config, name)
    eos = theirs.eos_token_id
    assert config.eos_token_id == (tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,))
    assert theirs.rope_parameters == {**(config.rope_scaling or {"rope_type": "default"}), "rope_theta": 5e5}
    assert str(theirs.dtype) == "torch.bfloat16"
    # And what transformers writes is read back as the same.
    theirs.save_pretrained(tmp_path / "again")
    assert ModelConfig.read(tmp_path / "again") == config


def test_missing_keys_take_the_defaults_of_transformers():
    least = {k: OLD[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    least |= {"num_attention_heads": 4}
    ours = ModelConfig.from_data({"model_type": "llama", **least})
    assert ours == ModelConfig.from_data(LlamaConfig(**least).to_dict())


@pytest.mark.parametrize(
    "values", [{}, {"tie_word_embeddings": True}, {"attention_bias": True, "mlp_bias": True}, {"head_dim": 16}]
)
def test_tensor_shapes_and_counts_are_those_of_transformers(values: dict[str, Any]):
    config = changed(**values)
    with_head = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(_theirs(config)).state_dict().items()}
    if config.tie_word_embeddings:
        del with_head["lm_head.weight"]
    assert tensor_shapes(config) == with_head
    parameters = sum(parameter.numel() for parameter in LlamaForCausalLM(_theirs(config)).parameters())
    assert config.parameter_count() == parameters == sum(config.parameters_by_part().values())


def _theirs(config: ModelConfig) -> LlamaConfig:
    return LlamaConfig.from_dict(config.to_data())


def test_kv_cache_bytes():
    # 2 (keys, values) × 3 layers × 2 heads × 8 values × 10 tokens × 4 sequences × 2 bytes
    assert changed().kv_cache_bytes(10, 4, 2) == 2 * 3 * 2 * 8 * 10 * 4 * 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "mamba"}, "'mamba' are not supported; supported: llama"),
        ({"model_type": None}, "lacks model_type"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"max_position_embeddings": None}, "lacks max_position_embeddings"),
        ({"hidden_size": 33}, "33 is not a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"num_attention_heads": 0}, "must be positive whole numbers"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        ({"vocab_size": "96"}, "vocab_size must be a whole number"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be a whole number from 1 to 2048"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"intermediate_size": 1.5}, "intermediate_size"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"torch_dtype": "int8"}, "dtype 'int8'"),
        ({"torch_dtype": 5}, "dtype 5"),
        ({"eos_token_id": 96}, "eos_token_id 96 is not a token of the vocabulary of 96"),
        ({"eos_token_id": ["a"]}, "eos_token_id 'a'"),
        ({"bos_token_id": 1.0}, "bos_token_id 1.0"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, "not supported; rope_type is one of"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "needs a positive number low_freq_factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 1e308}}, "needs a positive number factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "rope_theta": 1.0}, "needs a rope_theta above 1"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "head_dim": 2}, "more than one pair"),
        (
            {"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 1}},
            "needs an original_max_position_embeddings above 1",
        ),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"rope_scaling": {"rope_type": [1]}}, "not supported; rope_type is one of"),
        ({"rope_scaling": None, "rope_theta": None, "rope_parameters": 3}, "must be an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_refused(values: dict[str, Any], said: str):
    with pytest.raises(UserError) as error:
        changed(**values)
    assert said in error.value.message
    assert error.value.message.startswith("config.json")


FAMILY_SIZES = {key: OLD[key] for key in OLD if key not in ("model_type", "torch_dtype", "rope_scaling")}


@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "gemma2", "olmo2"])
def test_keys_that_a_family_does_not_have_change_nothing(model_type: str):
    plain = {**FAMILY_SIZES, "model_type": model_type}
    without = tensor_shapes(ModelConfig.from_data(plain))
    assert tensor_shapes(ModelConfig.from_data({**plain, "mlp_bias": True})) == without


@pytest.mark.parametrize(
    ("model_type", "values", "said"),
    [
        ("mistral", {"sliding_window": "all"}, "sliding_window must be a whole number"),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window must be true or false"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types must be a list of 3"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "layer_types must be a list of 3"),
        ("qwen3_moe", {"num_experts": 10**9}, "from 1 to 4096"),
        ("qwen3_moe", {"num_experts": 3, "num_experts_per_tok": 4}, "num_experts_per_tok is 4, but there are 3"),
        ("mixtral", {"num_local_experts": 1}, "num_experts_per_tok is 2, but there are 1"),
        ("qwen3_moe", {"num_experts": 4096, "num_hidden_layers": 2048}, "more experts than any model"),
        ("qwen3_moe", {"mlp_only_layers": 3}, "mlp_only_layers must be a list"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma2", {"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar"),
        ("gemma2", {"query_pre_attn_scalar": float("nan")}, "query_pre_attn_scalar"),
        ("llama", {"text_config": {"model_type": []}, "hidden_size": None}, "lacks hidden_size"),
        ("gemma2", {"attn_logit_softcapping": -1}, "attn_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("smollm3", {"no_rope_layers": [1, 2, 3]}, "no_rope_layers must be a list of 3"),
        (
            "gpt2",
            {"n_embd": 32, "n_layer": 3, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_in",
        ),
        ("gpt2", {"n_embd": None, "hidden_size": None}, "lacks n_embd"),
        ("bloom", {"n_layer": 3, "n_head": 4, "apply_residual_connection_post_layernorm": True}, "apply_residual"),
        ("gpt_neox", {"rotary_pct": 1.5}, "partial_rotary_factor must lie above 0"),
        ("gpt_neox", {"rotary_pct": 0.4}, "3 channels of a head are turned"),
        ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]}}, "a list of 4 positive"),
    ],
)
def test_what_a_family_refuses(model_type: str, values: dict[str, Any], said: str):
    with pytest.raises(UserError) as error:
        ModelConfig.from_data({**FAMILY_SIZES, "model_type": model_type, **values})
    assert said in error.value.message and error.value.message.startswith("config.json")


@pytest.mark.parametrize(
    ("data", "nearest", "differs"),
    [
        (
            {**OLD, "model_type": "qwen4", "use_sliding_window": False},
            "qwen",
            "has the keys of",
        ),
        ({**OLD, "model_type": "cohere", "logit_scale": 0.06}, "llama", "logit_scale, which llama's has not"),
        ({"model_type": "gpt_j", "n_embd": 8, "n_layer": 2, "n_head": 2, "rotary_dim": 4}, "gpt2", "rotary_dim"),
    ],
)
def test_an_unknown_architecture_is_told_its_nearest_relative(data: dict[str, Any], nearest: str, differs: str):
    with pytest.raises(UserError) as error:
        ModelConfig.from_data(data)
    assert f"The nearest is '{nearest}" in error.value.hint and differs in error.value.hint


def test_every_activation_that_a_config_may_name_is_computed():
    from bottega.checkpoint.config import ACTIVATIONS
    from bottega.model.feed_forward import ACTIVATIONS as COMPUTED

    assert set(ACTIVATIONS) == set(COMPUTED)


def test_the_base_of_rope_is_found_where_writers_put_it():
    scaling = {"rope_type": "linear", "factor": 2.0}
    assert changed(rope_theta=None, rope_scaling=scaling, rope_parameters={"rope_theta": 7.0}).rope_theta == 7
    assert changed(rope_theta=None, rope_scaling=scaling, rope_parameters=[1]).rope_theta == 10_000


def test_several_problems_are_named_at_once():
    with pytest.raises(UserError) as error:
        changed(num_key_value_heads=3, hidden_act="mish", rms_norm_eps=-1)
    assert all(word in error.value.message for word in ("num_key_value_heads", "mish", "rms_norm_eps"))


def test_an_old_minus_one_means_no_token():
    assert changed(pad_token_id=-1).pad_token_id is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_damaged_file(content: bytes, tmp_path: Path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError):
        ModelConfig.read(tmp_path)


def test_missing_file_says_where(tmp_path: Path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        ModelConfig.read(tmp_path)
