"""Names that settings have elsewhere: who comes from TRL, PEFT, transformers, Axolotl or LLaMA-Factory brings them.

The table is looked into once a key is unknown, for a hint; nothing is taken under another name than its own.
"""

from __future__ import annotations

WHOLE_STEP = "batch_size is that of a whole step, micro_batch_tokens how much of it is computed at once."
# Their name → ours, in the order in which they are looked for; or a sentence, where there is nothing to set.
KNOWN_NAMES: dict[str, tuple[str, ...] | str] = {
    # what is trained on what
    "model_name": ("model",), "model_name_or_path": ("model",), "base_model": ("model",), "model_id": ("model",),
    "pretrained_model_name_or_path": ("model",), "dataset": ("data",), "datasets": ("data",), "dataset_name": ("data",),
    "train_dataset": ("data",), "train_file": ("data",), "eval_dataset": ("heldout",), "test_datasets": ("heldout",),
    "validation_file": ("heldout",), "output_dir": ("out",), "output": ("out",), "overwrite_output_dir": ("overwrite",),
    "rl": ("stage",), "task": ("stage",), "trainer": ("stage",), "reward_funcs": ("rewards",), "roles_to_train":
    ("train_on",), "train_on_inputs": ("train_on",), "assistant_only_loss": ("train_on",),
    # batch and steps
    "num_train_epochs": ("epochs",), "num_epochs": ("epochs",), "n_epochs": ("epochs",), "epoch": ("epochs",),
    "steps": ("max_steps",), "num_steps": ("max_steps",), "train_batch_size": ("batch_size",),
    "global_batch_size": ("batch_size",), "per_device_train_batch_size": WHOLE_STEP, "micro_batch_size": WHOLE_STEP,
    "gradient_accumulation_steps": WHOLE_STEP, "max_seq_length": ("row_length",),
    "max_length": ("row_length", "max_new_tokens"),
    "sequence_len": ("row_length",), "cutoff_len": ("row_length",), "block_size": ("row_length",),
    "max_prompt_length": ("row_length",),
    "packing": "Rows are packed where tokens_per_step is given; with batch_size each example is its own row.",
    "sample_packing": "Rows are packed where tokens_per_step is given; with batch_size each example is its own row.",
    # optimiser
    "lr": ("learning_rate",), "optim": ("optimizer",), "lr_scheduler": ("schedule",), "lr_scheduler_type":
    ("schedule",), "warmup_ratio": ("warmup",), "max_grad_norm": ("clip",),
    "gradient_clipping": ("clip",), "gradient_checkpointing": ("checkpointing",),
    "fp16": ("dtype",), "bf16": ("dtype",), "torch_dtype": ("dtype",), "random_state": ("seed",),
    "torch_compile": ("compile",), "loraplus_lr_ratio": ("lora_plus_ratio",),
    # the adapter
    "rank": ("r",), "lora_r": ("r",), "lora_rank": ("r",), "lora_alpha": ("alpha",), "lora_dropout": ("dropout",),
    "lora_target_modules": ("target_modules",), "lora_target_linear": ("target_modules",), "peft_use_dora":
    ("use_dora",), "peft_use_rslora": ("use_rslora",), "dora": ("use_dora",), "rslora": ("use_rslora",),
    "lora_modules_to_save": ("modules_to_save",), "init_lora_weights": ("init",), "load_in_4bit": ("base",),
    "load_in_8bit": ("base",), "quantization": ("base",), "bnb_4bit_use_double_quant": ("double_quant",),
    "use_peft": ("adapter",), "peft_config": ("adapter",), "lora": ("adapter",), "peft_type": ("type",),
    # preferences and rewards
    "loss_type": ("loss",), "pref_loss": ("loss",), "dpo_beta": ("beta",), "kl_coef": ("beta",), "init_kl_coef":
    ("beta",), "simpo_gamma": ("margin",), "gamma_beta_ratio": ("margin",), "rpo_alpha": ("nll_weight",),
    "cpo_alpha": ("nll_weight",), "num_generations": ("group",), "group_size": ("group",), "epsilon_high":
    ("clip_high",), "cliprange": ("clip_low",), "cliprange_value": ("value_clip",), "vf_coef": ("value_weight",),
    "lam": ("trace",), "gamma": ("discount", "margin"), "num_ppo_epochs": ("updates",), "num_iterations": ("updates",),
    "max_completion_length": ("max_new_tokens",), "response_length": ("max_new_tokens",), "max_tokens":
    ("max_new_tokens",), "scale_rewards": ("advantage",), "mask_truncated_completions": ("mask_truncated",),
    # measuring and running
    "eval_steps": ("evaluate_every",), "eval_every": ("evaluate_every",), "save_steps": ("save_every",),
    "early_stopping_patience": ("patience",), "report_to": ("trackers",), "wandb_project": ("trackers",),
    "logging_steps": "Every step is written to metrics.jsonl.", "deepspeed": ("parallel",), "fsdp": ("parallel",),
    "resume_from_checkpoint": "The same command goes on where an interrupted run stopped.",
    "num_threads": ("threads",), "n_threads": ("threads",), "temp": ("temperature",),
}  # fmt: skip
