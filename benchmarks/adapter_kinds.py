"""What rank and kind of an adapter do: a small model of the documentation's bytes learns those of the source code.

    python benchmarks/adapter_kinds.py

A base is pre-trained on docs/*.md; each adapter then trains for the same steps on src/**/*.py, on the same rows.
Printed: numbers that are trained, the loss on held-out code after training, and on the documentation (what was
forgotten), in nats per byte. One thread; about a minute and a half on an idle core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottega.checkpoint.config import ModelConfig
from bottega.model.adapter_config import AdapterSettings
from bottega.model.decoder import Decoder
from bottega.model.lora import adapter_parameters, add_adapter, learning_rate_factors
from bottega.train.loss import linear_cross_entropy

ROOT = Path(__file__).resolve().parent.parent
ROWS, LENGTH = 4, 128
KINDS: dict[str, dict[str, Any]] = {
    "LoRA r 1": {"r": 1},
    "LoRA r 4": {"r": 4},
    "LoRA r 16": {"r": 16},
    "LoRA r 64": {"r": 64},
    "rsLoRA r 64, alpha 16": {"r": 64, "alpha": 16.0, "use_rslora": True},
    "LoRA r 64, alpha 16": {"r": 64, "alpha": 16.0},
    "DoRA r 16": {"r": 16, "use_dora": True},
    "PiSSA r 16": {"r": 16, "init": "pissa", "alpha": 32.0},
    "LoRA+ r 16, ratio 8": {"r": 16, "lora_plus_ratio": 8.0},
    "LoRA r 16, q and v only": {"r": 16, "target_modules": ("q_proj", "v_proj")},
}


def text(pattern: str) -> Tensor:
    """The bytes of the files, one after the other."""
    content = b"\n".join(path.read_bytes() for path in sorted(ROOT.glob(pattern)))
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).long()


def rows(data: Tensor, step: int) -> Tensor:
    """The rows of a step, (ROWS, LENGTH + 1)."""
    starts = torch.randint(len(data) - LENGTH - 1, (ROWS,), generator=torch.Generator().manual_seed(step))
    return torch.stack([data[start : start + LENGTH + 1] for start in starts.tolist()])


def loss_of(model: Decoder, batch: Tensor) -> Tensor:
    """Nats per byte."""
    hidden = model.hidden(batch[:, :-1]).flatten(0, 1)
    return linear_cross_entropy(hidden, model.lm_head.weight, batch[:, 1:].flatten()) / (ROWS * LENGTH)


def train(model: Decoder, data: Tensor, steps: int, rate: float, factors: dict[str, float]) -> None:
    """AdamW on what is trainable, the rate falling to zero."""
    parameters = dict(model.named_parameters())
    groups = [{"params": [parameters[name]], "lr": rate * factor} for name, factor in factors.items()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def factor_at(step: int) -> float:
        return min(1.0, (step + 1) / 10) * (1 - step / steps)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor_at)
    for step in range(steps):
        loss_of(model, rows(data, step)).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def measured(model: Decoder, data: Tensor) -> float:
    """The mean loss of twelve batches."""
    return sum(float(loss_of(model, rows(data, 10_000 + number))) for number in range(12)) / 12


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.base_steps, options.steps = 4, 2
    torch.set_num_threads(1)
    docs, code = text("docs/*.md"), text("src/bottega/**/*.py")
    border = len(code) * 9 // 10
    config = ModelConfig(
        vocab_size=256, hidden_size=96, intermediate_size=256, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=3, head_dim=32, max_position_embeddings=LENGTH + 1,
    )  # fmt: skip
    base = Decoder(config).initialise(torch.Generator().manual_seed(0))
    train(base, docs, options.base_steps, 4e-3, dict.fromkeys(dict(base.named_parameters()), 1.0))
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    print(f"| adapter | numbers trained | loss on code | on documentation | seconds |\n|{' --- |' * 5}")
    print(f"| none | 0 | {measured(base, code[border:]):.3f} | {measured(base, docs):.3f} | |")
    for name, values in {**KINDS, "everything": {}}.items():
        model = Decoder(config)
        model.load_state_dict(state)
        if values:
            add_adapter(model, AdapterSettings.parse(values), torch.Generator().manual_seed(0))
            factors, rate = learning_rate_factors(model), options.rate
            count = sum(parameter.numel() for parameter in adapter_parameters(model).values())
        else:
            factors, rate = dict.fromkeys(dict(model.named_parameters()), 1.0), options.rate / 2
            count = config.parameter_count()
        started = time.thread_time()
        train(model, code[:border], options.steps, rate, factors)
        seconds = time.thread_time() - started
        new, old = measured(model, code[border:]), measured(model, docs)
        print(f"| {name} | {count:,} | {new:.3f} | {old:.3f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
