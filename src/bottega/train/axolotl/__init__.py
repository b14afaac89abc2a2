"""Axolotl's YAML as settings of `train` (docs/finetuning.md). Key names and defaults are those of axolotl 0.18."""
