"""Keys of Axolotl's without a setting of ours: why each changes nothing, or what to do instead of it."""

from __future__ import annotations

SPEED = "speed only: kernels and attention are chosen here"
LOGGING = "logging: metrics.jsonl is always written; --trackers wandb or tensorboard sends it on"
DEVICES = "how the work is shared by devices; see docs/scale.md"
LOADING = "how files are read; nothing of it is needed here"
PREPARED = "prepared data are found again by the hash of data, tokenizer and settings"
SAVING = "states to go on from are kept by --save-every; the same command goes on"
HUB = "nothing is sent anywhere by train; push the finished folder with `bottega hub push`"
NO_CODE = "no code of a model or data set is ever run"

# Key → why it cannot change what is learned. A name that ends in * stands for all that begin so.
NOTED = {
    "flash_attention": SPEED, "flash_attn_*": SPEED, "flash_optimum": SPEED, "xformers_attention": SPEED,
    "sdp_attention": SPEED, "flex_attention": SPEED, "flex_attn_compile_kwargs": SPEED, "eager_attention": SPEED,
    "sage_attention": SPEED, "attn_implementation": SPEED, "unsloth_*": SPEED, "lora_mlp_kernel": SPEED,
    "lora_qkv_kernel": SPEED, "lora_o_kernel": SPEED, "lora_embedding_kernel": SPEED, "liger_*": SPEED,
    "cut_cross_entropy": SPEED, "chunked_cross_entropy": SPEED, "chunked_cross_entropy_num_chunks": SPEED,
    "tiled_mlp": SPEED, "use_kernels": SPEED, "torch_compile_*": SPEED, "tf32": SPEED, "gc_steps": SPEED,
    "group_by_length": "rows are packed without padding; there is nothing to group",
    "pad_to_sequence_len": "rows are never padded",
    "eval_sample_packing": "measuring packs too; documents never see each other",
    "sample_packing_group_size": "packing looks at all the data",
    "sample_packing_bin_size": "packing looks at all the data",
    "multipack_real_batches": "documents never see each other",
    "pretrain_multipack_*": "documents never see each other",
    "batch_flattening": "rows are never padded",
    "auto_find_batch_size": "micro_batch_tokens bounds the memory; the batch stays what it is",
    "eval_batch_size": "memory only: micro_batch_tokens",
    "dataloader_*": LOADING, "dataset_processes": LOADING, "dataset_num_proc": LOADING, "low_cpu_mem_usage": LOADING,
    "dataset_keep_in_memory": LOADING, "qlora_sharded_model_loading": LOADING, "lora_on_cpu": LOADING,
    "base_model_ignore_patterns": LOADING, "remove_unused_columns": LOADING, "skip_prepare_dataset": LOADING,
    "tokenizer_use_fast": LOADING, "tokenizer_legacy": LOADING, "tokenizer_save_jinja_files": LOADING,
    "experimental_skip_move_to_device": LOADING, "is_preprocess": LOADING, "preprocess_iterable": LOADING,
    "dataset_prepared_path": PREPARED, "streaming": PREPARED, "streaming_multipack_buffer_size": PREPARED,
    "deepspeed": DEVICES, "fsdp": DEVICES, "fsdp_*": DEVICES, "ddp": DEVICES, "ddp_*": DEVICES, "local_rank": DEVICES,
    "world_size": DEVICES, "device": DEVICES, "device_map": DEVICES, "max_memory": DEVICES, "use_ray": DEVICES,
    "gpu_memory_limit": DEVICES, "accelerator_config": DEVICES, "ray_*": DEVICES, "resources_per_worker": DEVICES,
    "sequence_parallel_degree": DEVICES, "context_parallel_size": DEVICES, "tensor_parallel_size": DEVICES,
    "dp_shard_size": DEVICES, "dp_replicate_size": DEVICES, "heads_k_stride": DEVICES, "ring_attn_func": DEVICES,
    "torchdistx_path": DEVICES,
    "wandb_*": LOGGING, "use_wandb": LOGGING, "mlflow_*": LOGGING, "use_mlflow": LOGGING, "comet_*": LOGGING,
    "hf_mlflow_log_artifacts": LOGGING, "use_comet": LOGGING, "use_tensorboard": LOGGING, "logging_steps": LOGGING,
    "trackio_*": LOGGING, "use_trackio": LOGGING, "swanlab_*": LOGGING, "use_swanlab": LOGGING, "otel_*": LOGGING,
    "use_otel_metrics": LOGGING, "include_tokens_per_second": LOGGING, "include_tkps": LOGGING,
    "profiler_steps": LOGGING, "debug": LOGGING, "gradio_*": "use `bottega chat` or `bottega serve`",
    "hub_*": HUB, "push_dataset_to_hub": HUB, "hf_use_auth_token": HUB,
    "trust_remote_code": NO_CODE, "strict": "unknown settings are always errors here",
    "save_strategy": SAVING, "save_total_limit": SAVING, "saves_per_epoch": SAVING, "save_only_model": SAVING,
    "save_safetensors": "weights are always safetensors", "save_first_step": SAVING,
    "resume_from_checkpoint": SAVING, "auto_resume_from_checkpoints": SAVING, "dynamic_checkpoint": SAVING,
    "load_best_model_at_end": "with --patience the best weights are kept",
    "metric_for_best_model": "the loss on --heldout decides", "greater_is_better": "the loss on --heldout decides",
    "eval_strategy": "with --heldout it is measured every --evaluate-every steps",
    "evaluation_strategy": "with --heldout it is measured every --evaluate-every steps",
    "evals_per_epoch": "with --heldout it is measured every --evaluate-every steps",
    "eval_table_size": "give prompts to see samples", "eval_max_new_tokens": "give prompts to see samples",
    "eval_table_max_new_tokens": "give prompts to see samples", "generate_samples": "give prompts to see samples",
    "num_generation_samples": "give prompts to see samples", "generation_*": "give prompts to see samples",
    "do_causal_lm_eval": "afterwards: --compare, or `bottega eval`",
    "eval_causal_lm_metrics": "afterwards: --compare, or `bottega eval`",
    "do_bench_eval": "afterwards: --tasks, or `bottega eval`",
    "bench_dataset": "afterwards: --tasks, or `bottega eval`", "bench_split": "afterwards: --tasks, or `bottega eval`",
    "loss_watchdog_threshold": "spikes are skipped or stop the run: --on-bad-step, --spike-sigma",
    "loss_watchdog_patience": "spikes are skipped or stop the run: --on-bad-step, --spike-sigma",
    "gradient_checkpointing_kwargs": "the way of checkpointing is fixed, and tested with adapters",
    "merge_lora": "afterwards: `bottega adapter merge`", "merge_method": "afterwards: `bottega adapter merge`",
    "model_type": "told from config.json", "tokenizer_type": "told from the tokenizer's files",
    "processor_type": "told from config.json", "cls_model_config": "told from config.json",
    "is_llama_derived_model": "told from config.json", "is_mistral_derived_model": "told from config.json",
    "is_falcon_derived_model": "told from config.json", "is_qwen_derived_model": "told from config.json",
    "lora_fan_in_fan_out": "told from the layer",
    "resize_token_embeddings_to_32x": "the vocabulary stays as it is; tokenizer extend --multiple-of fills it up",
    "dpo_use_logits_to_keep": SPEED, "dpo_padding_free": SPEED, "precompute_ref_log_probs": SPEED,
    "dpo_generate_during_eval": "give prompts to see samples", "vllm": "answers come from the engine here",
    "total_num_tokens": LOADING, "total_supervised_tokens": LOADING, "sample_packing_eff_est": LOADING,
    "axolotl_config_path": LOADING, "fix_untrained_tokens": "rows of new tokens begin as the mean of their pieces",
    "mean_resizing_embeddings": "rows of new tokens begin as the mean of their pieces", "embeddings_skip_upcast": SPEED,
    "peft_autocast_adapter_dtype": "adapters are kept in float32",
}  # fmt: skip

EXTEND = "add them first with `bottega tokenizer extend`, and train their rows with adapter.new_tokens: auto"
CONFIG_JSON = "change config.json in a copy of the model's folder, so that whoever opens the result sees it too"
ORDER = "the order of the data is a permutation per epoch; there is no other"
ADAMW = "take adamw, adamw8bit, adamw_kahan or muon"
ONE_RATE = "one rate for all; lora_plus_ratio gives B of an adapter another"
DISTILL = "this stage is not there"
PREPARE_FIRST = "do it to the file first"

# Key → why not, and the nearest that there is. Values that switch it off are no errors.
REFUSED = {
    "gptq": "a GPTQ base is not trained on; take the 16-bit model with adapter.base: nf4",
    "lora_target_parameters": "only whole layers have adapters; name modules in adapter.target_modules",
    "peft_layer_replication": "layers are not repeated",
    "relora": "ReLoRA is not there; take a larger adapter.r with use_rslora",
    "relora_*": "ReLoRA is not there; take a larger adapter.r with use_rslora",
    "lisa_*": "LISA is not there; take an adapter, or train everything",
    "unfrozen_parameters": "train everything, or an adapter with adapter.modules_to_save",
    "neftune_noise_alpha": "noise on embeddings is not there; adapter.dropout is the nearest",
    "noisy_embedding_alpha": "noise on embeddings is not there; adapter.dropout is the nearest",
    "rope_scaling": CONFIG_JSON, "rope_theta": CONFIG_JSON, "model_config": CONFIG_JSON, "model_kwargs": CONFIG_JSON,
    "overrides_of_model_config": CONFIG_JSON, "overrides_of_model_kwargs": CONFIG_JSON,
    "use_pose": "PoSE is not there; give a longer row_length", "pose_*": "PoSE is not there; give a longer row_length",
    "s2_attention": "shifted sparse attention is not there; attention is always whole",
    "curriculum_sampling": ORDER, "sample_packing_sequentially": ORDER,
    "min_sample_len": f"short rows are trained too; {PREPARE_FIRST}",
    "dataset_exact_deduplication": f"`bottega data check` finds duplicates; {PREPARE_FIRST}",
    "dataset_shard_num": PREPARE_FIRST, "dataset_shard_idx": PREPARE_FIRST,
    "default_system_message": "a system message belongs into the data or into the chat template",
    "tokens": EXTEND, "added_tokens_overrides": EXTEND, "shrink_embeddings": "the vocabulary stays as it is",
    "optim_target_modules": f"GaLore and its kin are not there; {ADAMW}", "optim_args": ADAMW,
    "lr_groups": ONE_RATE, "embedding_lr": ONE_RATE, "embedding_lr_scale": ONE_RATE,
    "lr_quadratic_warmup": "the rate rises in a straight line",
    "cosine_constant_lr_ratio": "wsd keeps the rate constant and then falls: schedule: wsd, decay",
    "lr_div_factor": "the rate rises from zero", "jagged_restart_*": "schedules have no restarts",
    "adam_beta3": ADAMW, "adam_epsilon2": ADAMW,
    "process_reward_model": "rewards of steps are not trained; stage: reward scores whole answers",
    "dpo_use_weighting": "weighted DPO is not there; see preference.loss for the variants",
    "dpo_norm_loss": "the nearest is preference: {loss: sigmoid_norm}",
    "use_dynamic_finetuning": DISTILL, "use_eaft": DISTILL, "eaft_*": DISTILL, "kd_*": DISTILL, "qat": DISTILL,
    "quantization": "afterwards: quantise the finished model", "diffusion": DISTILL, "ebft": DISTILL,
    "llama4_linearized_experts": "experts stay as the model's family has them",
    "pretraining_sample_concatenation": "documents never see each other",
    "tokenizer_use_mistral_common": "the folder's own tokenizer is used",
    "model_quantization_config": "give a model in 16 bits, and adapter.base",
    "peft_ensure_weight_tying": "tied weights stay tied here, whole or not at all",
    "fp8": "float32 or bfloat16: dtype",
}  # fmt: skip


def look_up(table: dict[str, str], key: str) -> str | None:
    """The reason in `table` for `key`: its own, or that of the longest beginning of it that ends in *."""
    if key in table:
        return table[key]
    beginnings = [name for name in table if name.endswith("*") and key.startswith(name[:-1])]
    return table[max(beginnings, key=len)] if beginnings else None
