"""Questions whose numbers are drawn and whose answers are computed."""

import random
from typing import Any


def trained_tokens(draw: random.Random) -> dict[str, Any]:
    """Contents of the assistant's turns, each with its stop token."""
    users, answers = [draw.randint(3, 12) for _ in range(2)], [draw.randint(2, 9) for _ in range(2)]
    header, found = draw.randint(1, 3), sum(answers) + 2
    return {
        "stem": f"Two questions of {users[0]} and {users[1]} tokens have answers of {answers[0]} and {answers[1]} tokens. Each turn has a "
        f"header of {header} and a stop token behind it. How many tokens are trained?",
        "answer": found, "tolerance": 0, "unit": "tokens",
        "why": f"{answers[0]} + {answers[1]}, and a stop token for each answer: {found}.",
        "mistakes": {str(found - 2): "The stop token behind each answer is trained too."},
    }  # fmt: skip


def lora_count(draw: random.Random) -> dict[str, Any]:
    """r (d_in + d_out)."""
    rank, wide, tall = draw.choice([4, 8, 16, 32, 64]), draw.choice([1024, 2048, 4096]), draw.choice([1024, 4096, 11008])
    found = rank * (wide + tall)
    return {
        "stem": f"How many numbers does LoRA of rank {rank} train for a matrix of {tall:,} × {wide:,}?",
        "answer": found, "tolerance": 0, "unit": "numbers",
        "why": f"A is {rank} × {wide:,}, B is {tall:,} × {rank}: {rank} · ({wide:,} + {tall:,}) = {found:,}.",
        "mistakes": {str(rank * wide * tall): "A and B add up; they do not multiply.", str(wide * tall): "That is the whole matrix."},
    }  # fmt: skip


def alpha_scale(draw: random.Random) -> dict[str, Any]:
    """alpha / r, or alpha / sqrt r."""
    rank, alpha = draw.choice([4, 16, 64, 256]), draw.choice([8, 16, 32, 64])
    root = draw.random() < 0.5
    found = alpha / rank**0.5 if root else alpha / rank
    other = alpha / rank if root else alpha / rank**0.5
    kind = "rank-stabilised LoRA" if root else "LoRA"
    return {
        "stem": f"Which factor stands before the product B A in {kind} of rank {rank} with alpha {alpha}?",
        "answer": round(found, 6), "tolerance": 0.01 * found, "unit": "",
        "why": f"{alpha} / {'√' if root else ''}{rank} = {found:g}.",
        "mistakes": {} if other == found else {f"{other:g}": "That is the factor of the other kind."},
    }  # fmt: skip


def bits_a_weight(draw: random.Random) -> dict[str, Any]:
    """4 + 32 / block, or with double quantisation 4 + 8 / block + 32 / (block * 256)."""
    block, double = draw.choice([32, 64, 128]), draw.random() < 0.6
    plain = 4 + 32 / block
    found = 4 + 8 / block + 32 / (256 * block) if double else plain
    how = "in 8 bits, with one number of 32 bits for each 256 of them" if double else "in 32 bits"
    why = f"4 + 8/{block} + 32/(256 · {block})" if double else f"4 + 32/{block}"
    return {
        "stem": f"Weights have four bits, and each block of {block} has a scale {how}. How many bits a weight is that?",
        "answer": round(found, 4), "tolerance": 0.003, "unit": "bits",
        "why": f"{why} = {found:.3f}.",
        "mistakes": {"4": "The scales have to be kept too."},
    }  # fmt: skip


def state_memory(draw: random.Random) -> dict[str, Any]:
    """Moments of Adam."""
    size, eight = draw.choice([1, 3, 7, 8, 13]), draw.random() < 0.5
    each = 2 if eight else 8
    return {
        "stem": f"How many gigabytes (10⁹ bytes) do Adam's two moments of {size} billion parameters take, in {8 if eight else 32} bits each?",
        "answer": size * each, "tolerance": 0.05 * size * each, "unit": "GB",
        "why": f"2 moments of {each // 2} byte{'s' if each > 2 else ''}: {each} · {size} = {size * each}.",
        "mistakes": {str(size * each // 2): "There are two moments."},
    }  # fmt: skip


def tokens_a_step(draw: random.Random) -> dict[str, Any]:
    """micro batch * accumulation * devices * length."""
    micro, parts, devices, length = draw.choice([1, 2, 4]), draw.choice([2, 4, 8]), draw.choice([1, 2, 8]), draw.choice([1024, 2048, 4096])
    found = micro * parts * devices * length
    return {
        "stem": f"A micro-batch of {micro}, accumulation over {parts} parts, {devices} device{'s' if devices > 1 else ''}, packed rows of {length:,} tokens. How many tokens has a step?",
        "answer": found, "tolerance": 0, "unit": "tokens",
        "why": f"{micro} · {parts} · {devices} · {length:,} = {found:,}.",
        "mistakes": {str(found // length): "Those are rows."},
    }  # fmt: skip


def zero_share(draw: random.Random) -> dict[str, Any]:
    """GB for each GPU by stage."""
    size, gpus, stage = draw.choice([1, 3, 7, 8, 13, 70]), draw.choice([2, 4, 8, 16, 64]), draw.randint(1, 3)
    found = size * (2 / (gpus if stage == 3 else 1) + 2 / (gpus if stage >= 2 else 1) + 12 / gpus)
    return {
        "stem": f"{size} billion parameters, AdamW in mixed precision (2 + 2 + 12 bytes), ZeRO stage {stage} on {gpus} GPUs. How many GB has each, without activations?",
        "answer": round(found, 3), "tolerance": 0.02 * found, "unit": "GB",
        "why": f"Stage {stage} divides {('the states', 'states and gradients', 'everything')[stage - 1]}: {found:.2f} GB.",
        "mistakes": {f"{16 * size}": "That is without division."},
    }  # fmt: skip


def padding_share(draw: random.Random) -> dict[str, Any]:
    """Share of a padded batch that is padding."""
    lengths = [draw.randint(5, 60) * 10 for _ in range(4)]
    found = 100 * (1 - sum(lengths) / (4 * max(lengths)))
    return {
        "stem": f"Four rows of {', '.join(map(str, lengths))} tokens are filled up to the longest. How many per cent of the batch are padding?",
        "answer": round(found, 1), "tolerance": 1.0 if found > 10 else 0.15 * found, "unit": "%",
        "why": f"{sum(lengths)} of 4 · {max(lengths)} = {4 * max(lengths)} are tokens: {found:.1f} % are not.", "mistakes": {},
    }  # fmt: skip
