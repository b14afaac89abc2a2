"""Axolotl's YAML as settings of train: shapes of its published examples, its defaults, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bottega.cli.main import main
from bottega.core.errors import UserError
from bottega.core.foreign import Foreign
from bottega.data.formats.detect import examples_of
from bottega.data.formats.kinds import Labelled, Pair
from bottega.data.spec import Form
from bottega.train.axolotl.keys import NOTED, REFUSED, look_up
from bottega.train.axolotl.mapping import READ, TELLING, is_axolotl, translate
from bottega.train.config import Train

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BASE = """
base_model: org/model
datasets: [{path: rows.jsonl, type: chat_template}]
output_dir: ./out
sequence_len: 2048
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 2e-4
"""


LORA = "adapter: lora\nlora_target_linear: true\n"


def read(text: str, base: str = BASE) -> Foreign:
    """A file with these lines in place of, or beside, the usual ones."""
    foreign = translate({**yaml.safe_load(base), **yaml.safe_load(text or "{}")})
    assert foreign is not None
    return foreign


def settings(text: str, base: str = BASE) -> dict[str, Any]:
    """The settings, which nothing in the file may have prevented, as they are checked by the verb's model."""
    foreign = read(text, base)
    assert not foreign.of("not understood"), foreign.of("not understood")
    Train.parse({"out": "out", **foreign.settings}, where="train")
    return foreign.settings


def refused(text: str, base: str = BASE) -> dict[str, str]:
    return {line.key: line.text for line in read(text, base).of("not understood")}


def noted(text: str) -> dict[str, str]:
    return {line.key: line.text for line in read(text).of("noted")}


def differing(text: str, base: str = BASE) -> dict[str, str]:
    return {line.key: line.text for line in read(text, base).of("differs")}


# Shapes as in Axolotl's examples folder and in the course's notebooks: key by key, the values are ours.
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "qlora of Llama 2, as many of the archive": (
        """
        base_model: org/Llama-2-7b-hf
        model_type: LlamaForCausalLM
        tokenizer_type: LlamaTokenizer
        is_llama_derived_model: true
        load_in_8bit: false
        load_in_4bit: true
        strict: false
        datasets: [{path: rows.jsonl, type: alpaca}]
        dataset_prepared_path:
        val_set_size: 0.05
        output_dir: ./qlora-out
        adapter: qlora
        lora_model_dir:
        sequence_len: 4096
        sample_packing: true
        pad_to_sequence_len: true
        lora_r: 32
        lora_alpha: 16
        lora_dropout: 0.05
        lora_target_modules:
        lora_target_linear: true
        lora_fan_in_fan_out:
        wandb_project:
        wandb_entity:
        gradient_accumulation_steps: 4
        micro_batch_size: 2
        num_epochs: 4
        optimizer: paged_adamw_32bit
        lr_scheduler: cosine
        learning_rate: 0.0002
        train_on_inputs: false
        group_by_length: false
        bf16: auto
        fp16:
        tf32: false
        gradient_checkpointing: true
        early_stopping_patience:
        resume_from_checkpoint:
        local_rank:
        logging_steps: 1
        xformers_attention:
        flash_attention: true
        warmup_steps: 10
        evals_per_epoch: 4
        saves_per_epoch: 1
        debug:
        deepspeed:
        weight_decay: 0.0
        fsdp:
        fsdp_config:
        special_tokens:
        """,
        {
            "stage": "sft", "model": "org/Llama-2-7b-hf", "tokens_per_step": 4096 * 8, "row_length": 4096,
            "optimizer": "adamw", "weight_decay": 0.0, "epochs": 4, "checkpointing": "full", "dtype": "auto",
            "schedule": "cosine", "out": "./qlora-out", "seed": 42, "data": "rows.jsonl", "learning_rate": 2e-4,
            "adapter": {"type": "qlora", "base": "nf4", "r": 32, "alpha": 16, "dropout": 0.05,
                        "target_modules": "all-linear"},
        },
    ),
    "all weights, 8-bit states": (
        """
        base_model: org/Llama-2-7b-hf
        model_type: LlamaForCausalLM
        tokenizer_type: LlamaTokenizer
        load_in_8bit: false
        load_in_4bit: false
        datasets: [{path: rows.jsonl, type: alpaca}]
        dataset_prepared_path: last_run_prepared
        val_set_size: 0
        sequence_len: 4096
        sample_packing: true
        adapter:
        lora_r:
        gradient_accumulation_steps: 1
        micro_batch_size: 1
        num_epochs: 1
        optimizer: adamw_bnb_8bit
        lr_scheduler: cosine
        learning_rate: 0.0002
        flash_attn_cross_entropy: false
        flash_attn_rms_norm: true
        flash_attn_fuse_mlp: true
        weight_decay: 0.1
        deepspeed: deepspeed_configs/zero2.json
        """,
        {"optimizer": "adamw8bit", "tokens_per_step": 4096, "weight_decay": 0.1, "epochs": 1},
    ),
}  # fmt: skip
EXAMPLES["lora on an int8 base"] = (
    BASE + "load_in_8bit: true\nadapter: lora\nlora_r: 16\nlora_alpha: 32\nlora_target_modules: [q_proj, v_proj]\n",
    {"adapter": {"type": "lora", "base": "int8", "r": 16, "alpha": 32, "target_modules": ["q_proj", "v_proj"]},
     "batch_size": 8},
)  # fmt: skip


SHAPES: list[tuple[str, dict[str, Any]]] = [
    # sharegpt of old, with its conversation template, and with fields by name
    ("datasets: [{path: rows.jsonl, type: sharegpt, ds_type: json, split: train}]", {"stage": "sft", "batch_size": 8}),
    (
        "datasets: [{path: rows.jsonl, type: chat_template, field_messages: conversations, message_field_role: from, "
        "message_field_content: value, roles: {assistant: [gpt, model], user: [human, user]}}]",
        {"data": "rows.jsonl"},
    ),
    (
        "datasets: [{path: rows.jsonl, type: chat_template, roles_to_train: [assistant], train_on_eos: last, "
        "message_property_mappings: {role: from, content: value}}]",
        {"train_on": "assistant", "train_on_eos": "last"},
    ),
    ("datasets: [{path: rows.jsonl, type: chat_template}]\ntrain_on_inputs: true", {"train_on": "all"}),
    # plain text
    ("datasets: [{path: text.jsonl, type: completion, field: text}]", {"stage": "pretrain", "tokens_per_step": 16384}),
    ("pretraining_dataset: [{path: text.jsonl, text_column: text, type: pretrain}]\ndatasets:\nmax_steps: 100\n",
     {"stage": "pretrain", "max_steps": 100}),
    # tokens, and files by their kind
    ("datasets: [{path: tokens.jsonl, type: }]", {"stage": "sft"}),
    ("datasets: [{path: json, data_files: [mine.jsonl], type: alpaca}]", {"data": "mine.jsonl"}),
    # preferences
    ("rl: dpo\ndpo_beta: 0.2\ndatasets: [{path: p.jsonl, type: chat_template.argilla_chat}]",
     {"stage": "dpo", "preference": {"beta": 0.2}, "batch_size": 8}),
    ("rl: ipo\nrl_beta: 0.3\ndatasets: [{path: p.jsonl, split: train}]",
     {"stage": "dpo", "preference": {"loss": "ipo", "beta": 0.3}}),
    ("rl: orpo\norpo_alpha: 0.1\nremove_unused_columns: false\n"
     "datasets: [{path: p.jsonl, type: chat_template.argilla}]",
     {"stage": "orpo", "preference": {"beta": 0.1}}),
    ("rl: simpo\nrl_beta: 2.0\nsimpo_gamma: 1.0\ncpo_alpha: 0.0\ndatasets: [{path: p.jsonl}]",
     {"stage": "simpo", "preference": {"beta": 2.0, "margin": 0.5, "nll_weight": 0.0}}),
    ("rl: kto\nrl_beta: 0.5\nkto_desirable_weight: 0.2\nkto_undesirable_weight: 1.0\nremove_unused_columns: false\n"
     "datasets: [{path: k.jsonl, type: {field_prompt: prompt, field_completion: completion, field_label: label}}]",
     {"stage": "kto", "preference": {"beta": 0.5, "desirable_weight": 0.2, "undesirable_weight": 1.0}}),
    ("reward_model: true\nnum_labels: 1\ncenter_rewards_coefficient: 0.01\ndatasets: [{path: p.jsonl}]",
     {"stage": "reward", "preference": {"centre": 0.01}}),
    # newer names: DoRA, rsLoRA, LoRA+, PiSSA, rows of tokens
    ("adapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true\npeft_use_dora: true",
     {"adapter": {"type": "lora", "r": 8, "alpha": 8, "target_modules": "all-linear", "use_dora": True}}),
    ("adapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true\npeft_use_rslora: true\nloraplus_lr_ratio: 16",
     {"adapter": {"type": "lora", "r": 8, "alpha": 8, "target_modules": "all-linear", "use_rslora": True,
                  "lora_plus_ratio": 16}}),
    ("adapter: lora\nlora_target_linear: true\npeft_init_lora_weights: pissa_niter_4\n"
     "peft_trainable_token_indices: {embed_tokens: [7, 5]}\nlora_modules_to_save: [lm_head]",
     {"adapter": {"type": "lora", "r": 8, "alpha": 8, "target_modules": "all-linear", "init": "pissa",
                  "pissa_iterations": 4, "new_tokens": [5, 7], "modules_to_save": ["lm_head"]}}),
    ("adapter: qlora\nload_in_4bit: true\nlora_target_modules: '.*self_attn.(q|v)_proj'\n"
     "bnb_config_kwargs: {bnb_4bit_use_double_quant: false, bnb_4bit_quant_type: nf4}\n"
     "peft_layers_to_transform: [0, 1]",
     {"adapter": {"type": "qlora", "base": "nf4", "r": 8, "alpha": 8, "double_quant": False,
                  "target_modules": ".*self_attn.(q|v)_proj", "layers_to_transform": [0, 1]}}),
    # optimisers, schedules, precision
    ("optimizer: muon\nlr_scheduler: warmup_stable_decay\nwarmup_ratio: 0.1\nmax_grad_norm: 0.3",
     {"optimizer": "muon", "schedule": "wsd", "warmup": 0.1, "clip": 0.3}),
    ("optimizer: optimi_adamw\nbf16: true", {"optimizer": "adamw_kahan", "weights": "bfloat16", "dtype": "bfloat16"}),
    ("lr_scheduler: cosine\ncosine_min_lr_ratio: 0.1", {"final_rate": 0.1}),
    ("lr_scheduler: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 2e-5}", {"final_rate": 0.1}),
    ("lr_scheduler: constant", {"schedule": "constant", "warmup": 0.0}),
    ("max_steps: 200\nwarmup_steps: 20\neval_steps: 0.1\nsave_steps: 50",
     {"max_steps": 200, "warmup_steps": 20, "evaluate_every": 20, "save_every": 50}),
    ("bf16: false\nfp16: false", {"dtype": "float32"}),
    ("gradient_checkpointing: offload\ntorch_compile: true", {"checkpointing": "offload", "compile": True}),
    ("batch_size: 32\nmicro_batch_size:\ngradient_accumulation_steps:\nseed: 7", {"batch_size": 32, "seed": 7}),
    ("test_datasets: [{path: held.jsonl, type: chat_template}]\nearly_stopping_patience: 3\neval_steps: 10",
     {"heldout": "held.jsonl", "patience": 3, "evaluate_every": 10}),
    ("revision_of_model: v1.0\nbase_model_config: org/model", {"model": "org/model@v1.0"}),
]  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_whole_files_of_known_shapes(name: str) -> None:
    text, expected = EXAMPLES[name]
    found = settings(text, "{}")
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(("text", "expected"), SHAPES)
def test_shapes_of_files(text: str, expected: dict[str, Any]) -> None:
    found = settings(text)
    assert {key: found.get(key) for key in expected} == expected


def test_what_a_file_leaves_out_is_axolotls_default_and_not_ours() -> None:
    least = "base_model: org/m\ndatasets: [{path: d.jsonl}]\nlearning_rate: 1e-5\nmicro_batch_size: 1\n"
    found = settings(least, "{}")
    assert found | {"x": 0} == {
        "model": "org/m", "stage": "sft", "data": "d.jsonl", "row_length": 512, "batch_size": 1, "epochs": 1.0,
        "optimizer": "adamw", "learning_rate": 1e-5, "weight_decay": 0.0, "seed": 42, "schedule": "cosine",
        "dtype": "auto", "x": 0,
    }  # fmt: skip


GRPO = """
rl: grpo
datasets: [{path: p.jsonl, type: rewards.transform, name: main}]
micro_batch_size: 16
gradient_accumulation_steps: 2
trl: {num_generations: 4, max_completion_length: 64, beta: 0.001, temperature: 0.7, use_vllm: true, epsilon_high: 0.28,
      vllm_server_port: 8000, reward_funcs: [rewards.right], reward_weights: [1.0], scale_rewards: false,
      loss_type: dr_grpo, num_iterations: 2, importance_sampling_level: sequence}
"""


def test_an_adapter_to_go_on_with_says_what_the_file_leaves_out() -> None:
    """There too the folder's own adapter_config.json holds; what is given besides must not contradict it."""
    assert settings("adapter: lora\nlora_model_dir: ./old")["adapter"] == {"type": "lora", "start": "./old"}
    both = settings(LORA + "lora_model_dir: ./old\nlora_r: 32")["adapter"]
    assert both == {"type": "lora", "start": "./old", "r": 32, "target_modules": "all-linear"}


def test_grpo_counts_answers_there_and_prompts_here() -> None:
    foreign = read(GRPO)
    assert not foreign.of("not understood")
    assert foreign.settings["batch_size"] == 8  # 32 answers, 4 to each prompt
    assert foreign.settings["policy"] == {
        "group": 4, "max_new_tokens": 64, "beta": 0.001, "temperature": 0.7, "clip_high": 0.28, "updates": 2,
        "advantage": "dr_grpo", "normaliser": "dr_grpo", "mask_truncated": False, "ratio": "sequence",
    }  # fmt: skip
    assert "rewards='[{type: exact" in {line.key: line.text for line in foreign.of("differs")}["trl.reward_funcs"]
    with pytest.raises(UserError, match="grpo needs rewards"):
        Train.parse(foreign.settings)
    more = {"rewards": [{"type": "exact", "field": "answer"}], "adapter": {"r": 4}}
    assert Train.parse({**foreign.settings, **more}).policy.group == 4
    uneven = refused(GRPO.replace("num_generations: 4", "num_generations: 5"))
    assert "no whole groups of 5" in uneven["micro_batch_size × gradient_accumulation_steps"]


def test_simpos_margin_is_the_share_that_trl_divides_by() -> None:
    """TRL: −log σ(β Δ − γ) for `simpo_gamma` γ; ours: −log σ(β (Δ − margin))."""
    for beta, gamma in ((2.0, 1.0), (2.5, 1.4), (10.0, 5.0)):
        found = settings(f"rl: simpo\nrl_beta: {beta}\nsimpo_gamma: {gamma}\ndatasets: [{{path: p.jsonl}}]")
        assert found["preference"]["beta"] * found["preference"]["margin"] == pytest.approx(gamma)
    left_out = settings("rl: simpo\ndatasets: [{path: p.jsonl}]")["preference"]
    assert left_out == {"beta": 0.1, "margin": 5.0, "nll_weight": 1.0}  # CPOConfig's own


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("neftune_noise_alpha: 5", "neftune_noise_alpha", "adapter.dropout"),
        ("rope_scaling: {type: linear, factor: 2}", "rope_scaling", "config.json"),
        ("overrides_of_model_config: {rope_theta: 1e6}", "overrides_of_model_config", "config.json"),
        ("tokens: ['<|new|>']", "tokens", "tokenizer extend"),
        ("added_tokens_overrides: {32000: '<|a|>'}", "added_tokens_overrides", "tokenizer extend"),
        ("special_tokens: {additional_special_tokens: ['<a>']}", "special_tokens.additional_special_tokens", "extend"),
        ("optimizer: lion_8bit", "optimizer", "adamw"),
        ("optimizer: galore_adamw", "optimizer", "adamw"),
        ("lr_scheduler: one_cycle", "lr_scheduler", "cosine"),
        ("lr_scheduler_kwargs: {num_cycles: 3}", "lr_scheduler_kwargs", "num_cycles"),
        ("adapter: llama-adapter", "adapter", "lora or qlora"),
        ("adapter: lora\nlora_r: 8", "lora_target_modules", "lora_target_linear"),
        ("load_in_4bit: true", "load_in_4bit", "needs adapter"),
        (LORA + "peft: {loftq_config: {loftq_bits: 4}}", "peft.loftq_config", "pissa"),
        (LORA + "peft_init_lora_weights: gaussian", "peft_init_lora_weights", "pissa"),
        ("relora_steps: 100", "relora_steps", "rslora"),
        ("lisa_n_layers: 4", "lisa_n_layers", "adapter"),
        ("unfrozen_parameters: [lm_head]", "unfrozen_parameters", "modules_to_save"),
        ("rl: ppo", "rl", "dpo"),
        ("rl: dpo\ndpo_loss_type: [sigmoid, sft]", "dpo_loss_type", "sigmoid, sft"),
        ("rl: dpo\ndatasets: [{path: p, type: zephyr.nectar}]", "datasets[0].type", "rename them to prompt"),
        ("rl: kto\ndatasets: [{path: p, type: chatml.argilla_chat}]", "datasets[0].type", "rename them to prompt"),
        ("process_reward_model: true", "process_reward_model", "stage: reward"),
        ("shuffle_merged_datasets: false", "shuffle_merged_datasets", "permutation"),
        ("curriculum_sampling: true", "curriculum_sampling", "permutation"),
        ("datasets: [{path: a}, {path: b}]", "datasets", "one folder"),
        ("datasets: [{path: json, data_files: [a.jsonl, b.jsonl]}]", "datasets[0].data_files", "one folder"),
        ("datasets: [{path: a, type: input_output}]", "datasets[0].type", "prompt/completion"),
        ("datasets: [{path: a, type: {format: '[INST] {instruction} [/INST]'}}]", "datasets[0].type", "one's own"),
        ("datasets: [{path: a, split: 'train[:10%]'}]", "datasets[0].split", "file of that part"),
        ("datasets: [{path: a, field_messages: dialogue}]", "datasets[0].field_messages", "'dialogue' to messages"),
        ("datasets: [{path: a, roles: {assistant: [agent]}}]", "datasets[0].roles", "'agent' is not read as assistant"),
        ("datasets: [{path: a, roles_to_train: [user]}]", "datasets[0].roles_to_train", "train_on"),
        ("datasets: [{path: a, train_on_eos: all}]", "datasets[0].train_on_eos", "turn, last or none"),
        ("datasets: [{path: a, shards: 10}]", "datasets[0].shards", "smaller file"),
        ("datasets: [{path: a, weight: 0.3}]", "datasets[0].weight", "not known"),
        ("datasets: []", "datasets", "no data set"),
        ("datasets: [{path: a, chat_template: unheard_of}]", "datasets[0].chat_template", "'unheard_of' is not known"),
        ("chat_template: jinja\nchat_template_jinja: x", "chat_template_jinja", "chat_template.jinja"),
        ("default_system_message: Hi", "default_system_message", "template"),
        ("plugins: [mine.Plugin]", "plugins", "no code"),
        ("tokenizer_config: org/other", "tokenizer_config", "copy"),
        ("learning_rate: fast", "learning_rate", "no number"),
        ("sequence_len: 10.5", "sequence_len", "no whole number"),
        ("learnign_rate: 1e-4", "learnign_rate", "Did you mean 'learning_rate'?"),
        ("trl: {num_generations: 8, top_k: 50}\nrl: grpo\nmicro_batch_size: 8", "trl.top_k", "temperature"),
        ("trl: {loss_type: bnpo}\nrl: grpo", "trl.loss_type", "dapo"),
        ("trl: {sync_ref_model: true}\nrl: grpo", "trl.sync_ref_model", "started from"),
        ("trl: {rollout_func: a.b}\nrl: grpo", "trl.rollout_func", "not there"),
    ],
)
def test_what_would_change_the_result_is_an_error_that_names_the_nearest(text: str, key: str, part: str) -> None:
    found = refused(text)
    assert part in found.get(key, ""), found


def test_an_error_names_every_line_and_what_to_do() -> None:
    with pytest.raises(UserError) as caught:
        read("neftune_noise_alpha: 5\nrope_scaling: {factor: 2}").require("my.yml")
    assert "my.yml has settings of Axolotl" in caught.value.message
    assert "neftune_noise_alpha" in caught.value.message and "rope_scaling" in caught.value.message
    assert "delete them" in caught.value.hint


def test_what_only_costs_time_or_tells_is_noted() -> None:
    text = """
    flash_attention: true
    flash_attn_fuse_qkv: true
    wandb_project: mine
    deepspeed: zero3.json
    fsdp_config: {fsdp_version: 2}
    hub_model_id: me/mine
    plugins: [axolotl.integrations.liger.LigerPlugin]
    liger_rope: true
    trust_remote_code: true
    gradient_checkpointing_kwargs: {use_reentrant: false}
    neftune_noise_alpha: 0
    new_key_of_a_later_version: false
    """
    found = noted(text)
    for key in yaml.safe_load(text):
        assert key in found, key
    assert "hub push" in found["hub_model_id"] and "scale.md" in found["deepspeed"]
    assert not refused(text)


def test_what_is_done_in_another_way_is_told() -> None:
    found = differing("val_set_size: 0.05\ndatasets: [{path: a/b, type: alpaca}]\nfp16: true\nbf16: ")
    assert "heldout=FILE" in found["val_set_size"]
    assert settings("adam_beta1: 0.8\nadam_beta2: 0.98\nwarmup_steps: 7")["betas"] == [0.8, 0.98]
    assert "chat template's" in found["datasets[0].type"] and "download it" in found["datasets[0].path"]
    assert "vanish" in found["fp16"] and "0.95, not 0.999" in found["optimizer"]
    assert "any number of devices" in found["micro_batch_size × gradient_accumulation_steps"]


def test_no_key_vanishes() -> None:
    """Whatever a file says leaves a line: a key and its value, in whatever it was put with."""
    text = "\n".join(f"{key}: some" for key in [*NOTED, *REFUSED] if not key.endswith("*") and key != "trl")
    foreign = translate({**yaml.safe_load(BASE), **yaml.safe_load(text)})
    assert foreign is not None
    told = {line.key for line in foreign.lines}
    assert not {key for key in yaml.safe_load(text) if key not in told}
    assert not set(NOTED) & set(REFUSED)
    assert not {key for key in READ if look_up(NOTED, key) or look_up(REFUSED, key)} - set(TELLING)


def model_folder(folder: Path, template: str, **tokens: str) -> Path:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, **tokens}))
    return folder


def test_a_named_chat_template_is_checked_against_the_models_own(tmp_path: Path) -> None:
    chatml = model_folder(tmp_path / "chatml", CHATML, eos_token="<|im_end|>")
    plain = model_folder(tmp_path / "plain", "")
    for name in ("chatml", "tokenizer_default", "tokenizer_default_fallback_llama3"):
        assert "chat_template" in noted(f"base_model: {chatml}\nchat_template: {name}")
    assert "is another" in refused(f"base_model: {chatml}\nchat_template: llama3")["chat_template"]
    assert "is missing" in refused(f"base_model: {plain}\nchat_template: chatml")["chat_template"]
    assert "see that it is chatml" in differing("chat_template: chatml")["chat_template"]
    pairs = f"base_model: {chatml}\nrl: dpo\ndatasets: [{{path: p, type: chatml.intel}}]"
    assert "datasets[0].type" in noted(pairs) and not refused(pairs)
    assert "is another" in refused(pairs.replace("chatml.intel", "llama3.intel"))["datasets[0].type"]
    stop = "special_tokens: {eos_token: '<|im_end|>', pad_token: '<|pad|>'}"
    assert not refused(f"base_model: {chatml}\n{stop}")
    other = refused(f"base_model: {chatml}\nspecial_tokens: {{eos_token: '</s>'}}")
    assert "<|im_end|>" in other["special_tokens.eos_token"]


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
OTHER = [TURNS[0], {"role": "assistant", "content": "b"}]
JUDGED: dict[str, tuple[Form, dict[str, Any]]] = {
    "dpo chat_template.intel": ("pairs", {"system": "s", "question": "q", "chosen": "a", "rejected": "b"}),
    "dpo chat_template.prompt_pairs": ("pairs", {"prompt": "q", "chosen": "a", "rejected": "b"}),
    "dpo chat_template.ultra": ("pairs", {"prompt": "q", "chosen": TURNS, "rejected": OTHER}),
    "dpo chat_template.argilla_chat": ("pairs", {"chosen": TURNS, "rejected": OTHER}),
    "dpo chat_template.icr": ("pairs", {"input": "q", "chosen": "a", "rejected": "b"}),
    "dpo chat_template.argilla": ("pairs", {"instruction": "q", "chosen_response": "a", "rejected_response": "b"}),
    "ipo chat_template.default": ("pairs", {"messages": TURNS[:1], "chosen": TURNS[1], "rejected": OTHER[1]}),
    "orpo chat_template.argilla": ("pairs", {"prompt": "q", "chosen": TURNS, "rejected": OTHER}),
    "simpo orpo.chat_template": ("pairs", {"prompt": "q", "chosen": TURNS, "rejected": OTHER}),
    "kto chat_template.prompt_pairs": ("labelled", {"prompt": "q", "completion": "a", "label": True}),
    "kto chat_template.intel": ("labelled", {"question": "q", "completion": "a", "label": True}),
    "kto chat_template.argilla": ("labelled", {"instruction": "q", "completion": "a", "label": False}),
}


@pytest.mark.parametrize("name", JUDGED)
def test_rows_of_every_type_that_is_taken_are_read(name: str) -> None:
    """The columns are those of Axolotl's documentation of preference data."""
    rl, kind = name.split()
    assert not refused(f"rl: {rl}\ndatasets: [{{path: p, type: {kind}}}]")
    form, row = JUDGED[name]
    _, (found,) = examples_of(row, form)
    assert isinstance(found, Pair | Labelled)
    answers = (found.chosen, found.rejected) if isinstance(found, Pair) else (found.completion,)

    def last(side: Any) -> str:
        return side if isinstance(side, str) else side[-1]["content"]

    assert last(found.prompt) == "q" and [last(answer) for answer in answers] == ["a", "b"][: len(answers)]


def test_only_axolotls_files_are_taken_for_such() -> None:
    assert is_axolotl(yaml.safe_load(BASE))
    assert not is_axolotl({"stage": "sft", "model": "m", "data": "d", "adapter": {"r": 8}})
    assert not is_axolotl({"base_model": "m"}) and not is_axolotl([1])
    assert translate({"model": "m", "data": "d"}) is None


def test_the_command_line_takes_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "axolotl.yml"
    path.write_text(BASE + "neftune_noise_alpha: 5\nflash_attention: true\n")

    def command(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["bottega", "train", str(path), *words])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    shown = command("--plan")
    assert "row_length: 2048" in shown and "not understood neftune_noise_alpha" in shown
    assert "error:" in shown and "Change these lines, or delete them" in shown
    path.write_text(BASE + "flash_attention: true\n")
    shown = command(f"model={tmp_path / 'none'}")  # what is on the command line comes after the file
    assert "more are understood" in shown and "row_length: 2048" not in shown and "none" in shown.split("error:")[1]
