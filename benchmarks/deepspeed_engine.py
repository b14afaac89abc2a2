"""DeepSpeed's engine on our decoder, in one process on the CPU: the losses of its ZeRO stages beside our own.

    python -m venv /tmp/ds-env && /tmp/ds-env/bin/pip install wheel setuptools torch
    DS_BUILD_OPS=0 /tmp/ds-env/bin/pip install --no-build-isolation deepspeed==0.19.8   (and bottega)
    DS_ACCELERATOR=cpu /tmp/ds-env/bin/python benchmarks/deepspeed_engine.py

Its communication operator is compiled at the first start, which takes a minute.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bottega.checkpoint.config import ModelConfig
from bottega.data.batches import Row
from bottega.model.decoder import Decoder
from bottega.train.batch import micro_batches
from bottega.train.loss import linear_cross_entropy
from bottega.train.optimizer import build_optimizers

STEPS, CLIP = 6, 0.5
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one stage only")
    arguments = parser.parse_args()
    ours = own_losses()
    try:
        import deepspeed  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("deepspeed is not installed: only our own losses", *(f"{loss:.6f}" for loss in ours))
        return
    os.environ.update(ALONE)
    deepspeed.init_distributed("gloo")
    for stage in (1,) if arguments.quick else (0, 1, 2):
        theirs = engine_losses(deepspeed, stage)
        worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        version = deepspeed.__version__
        print(f"DeepSpeed {version}, ZeRO {stage}: {STEPS} steps, largest difference of a loss {worst:.1e}")


def made() -> tuple[Decoder, torch.optim.Optimizer]:
    config = ModelConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=64,
        tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    model = Decoder(config).initialise(torch.Generator().manual_seed(0))
    (optimizer,) = build_optimizers(model, "adamw", learning_rate=0.01, weight_decay=0.1, work_dtype=torch.float32)
    return model, optimizer


def step(model: Decoder, number: int, backward: Callable[[Tensor, bool], Any]) -> float:
    """One step's micro-batches, as the loop has them: losses are divided by the trained tokens of the whole step."""
    draw = np.random.default_rng(number)
    rows = [Row(draw.integers(0, 97, n), draw.random(n) < 0.7, [n]) for n in (40, 7, 33, 21, 12)]
    parts = micro_batches(rows, 48)
    weight, total = sum(len(part.targets) for part in parts), 0.0
    for place, part in enumerate(parts):
        states = model.hidden(part.input_ids, segments=part.segments)[0, part.positions]
        loss = linear_cross_entropy(states, model.lm_head.weight, part.targets) / weight
        backward(loss, place == len(parts) - 1)
        total += float(loss.detach())
    return total


def own_losses() -> list[float]:
    model, optimizer = made()
    found = []
    for number in range(STEPS):
        found.append(step(model, number, lambda loss, _: loss.backward()))
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return found


def engine_losses(deepspeed: Any, stage: int) -> list[float]:
    model, optimizer = made()
    config = {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": CLIP,
        "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True, "steps_per_print": 10**9,
    }  # fmt: skip
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    def backward(loss: Tensor, is_last: bool) -> None:
        engine.set_gradient_accumulation_boundary(is_last)
        engine.backward(loss)

    found = []
    for number in range(STEPS):
        found.append(step(model, number, backward))
        engine.step()
    return found


if __name__ == "__main__":
    main()
