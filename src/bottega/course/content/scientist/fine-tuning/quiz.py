"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any


def trained_tokens(draw: random.Random) -> dict[str, Any]:
    """Answers and their end tokens."""
    turns, question, answer = draw.randint(2, 6), draw.randint(8, 40), draw.randint(3, 25)
    found = turns * (answer + 1)
    return {
        "stem": f"A conversation has {turns} questions of {question} tokens and as many answers of {answer} tokens. A mark stands before each turn, and an end token behind each answer. How many tokens are trained?",
        "answer": float(found), "tolerance": 0.0, "unit": "tokens",
        "why": f"Each answer and its end token: {turns} · ({answer} + 1) = {found}. Marks and questions are read only.",
        "mistakes": {
            str(turns * answer): "The end tokens are trained too, or the model does not learn to stop.",
            str(turns * (answer + question + 3)): "Those are all tokens; only what the assistant says is trained.",
        },
    }  # fmt: skip


def replay_share(draw: random.Random) -> dict[str, Any]:
    """Rows and trained tokens."""
    answer, text, old = draw.choice([2, 3, 5, 8, 10]), draw.choice([40, 60, 100, 200]), draw.choice([5, 10, 20, 30])
    found = 100 * old * text / (old * text + (100 - old) * answer)
    return {
        "stem": f"Of a mixture {old} % of the rows are texts with {text} trained tokens, the others questions with {answer}. Which share of the trained tokens is of the texts, in per cent?",
        "answer": round(found, 2), "tolerance": 0.6, "unit": "%",
        "why": f"{old} · {text} = {old * text} of {old * text} + {100 - old} · {answer} = {old * text + (100 - old) * answer}: {found:.1f} %.",
        "mistakes": {str(old): "That is the share of the rows; the loss counts tokens."},
    }  # fmt: skip


def lora_count(draw: random.Random) -> dict[str, Any]:
    """r (inputs + outputs)."""
    rank, inputs, outputs = draw.choice([1, 2, 4, 8, 16, 32]), draw.choice([512, 1024, 2048, 4096]), draw.choice([768, 3072, 5120, 11008])
    found = rank * (inputs + outputs)
    return {
        "stem": f"A matrix has {inputs} columns and {outputs} rows. How many numbers does LoRA of rank {rank} train beside it?",
        "answer": float(found), "tolerance": 0.0, "unit": "numbers",
        "why": f"A has {rank} · {inputs}, B has {outputs} · {rank}: {rank} · ({inputs} + {outputs}) = {found:,}.",
        "mistakes": {
            str(inputs * outputs): "That is the matrix itself, which is frozen.",
            str(rank * inputs): "That is A alone; B is trained as well.",
        },
    }  # fmt: skip


def lora_factor(draw: random.Random) -> dict[str, Any]:
    """alpha / r and alpha / sqrt(r)."""
    rank, alpha, stable = draw.choice([4, 16, 64, 256]), draw.choice([8, 24, 40]), draw.random() < 0.5
    found, other = alpha / math.sqrt(rank), alpha / rank
    if not stable:
        found, other = other, found
    return {
        "stem": f"{'rsLoRA' if stable else 'LoRA'} of rank {rank} with alpha {alpha}: by which factor is B A x multiplied?",
        "answer": round(found, 5), "tolerance": round(0.01 * found, 5), "unit": "",
        "why": f"{'alpha / √r' if stable else 'alpha / r'} = {found:g}.",
        "mistakes": {f"{other:.5f}": f"That is the factor of {'LoRA' if stable else 'rsLoRA'}."},
    }  # fmt: skip


def block_bits(draw: random.Random) -> dict[str, Any]:
    """Bits a weight with scales."""
    block, scale, outer = draw.choice([32, 64, 128]), draw.choice([16, 32]), draw.choice([0, 128, 256])
    found = 4 + (8 / block + scale / (block * outer) if outer else scale / block)
    how = f"kept in 8 bits, and every {outer} of them share a scale of {scale} bits" if outer else f"kept in {scale} bits"
    return {
        "stem": f"Weights of 4 bits share a scale in blocks of {block}. The scales are {how}. How many bits does a weight take?",
        "answer": round(found, 4), "tolerance": 0.004, "unit": "bits",
        "why": f"4 + {f'8/{block} + {scale}/({block} · {outer})' if outer else f'{scale}/{block}'} = {found:.4f}.",
        "mistakes": {"4": "The scales have to be stored too."},
    }  # fmt: skip


def base_size(draw: random.Random) -> dict[str, Any]:
    """Linear layers in NF4, tables in 16 bits."""
    linear, tables = draw.choice([3, 6.5, 12.5, 32, 65]) + draw.randint(0, 4) / 10, draw.choice([0.3, 0.5, 1.0])
    found = linear * 4.127 / 8 + 2 * tables
    return {
        "stem": f"Linear layers of {linear:g} billion weights are kept at 4.127 bits, embedding and head of {tables:g} billion in 16 bits. How many gigabytes (10⁹ bytes) is that?",
        "answer": round(found, 3), "tolerance": round(0.02 * found, 3), "unit": "GB",
        "why": f"{linear:g} · 4.127 / 8 + {tables:g} · 2 = {found:.2f}.",
        "mistakes": {f"{linear * 4.127 + 16 * tables:.2f}": "Those are gigabits: divide by 8."},
    }  # fmt: skip


def adapter_states(draw: random.Random) -> dict[str, Any]:
    """8 bytes a trained number."""
    millions, eight = draw.randint(5, 90) * 4, draw.random() < 0.4
    each = 2 if eight else 8
    found = millions * each / 1000
    return {
        "stem": f"An adapter has {millions} million numbers. How many gigabytes do Adam's two moments take, in {'8' if eight else '32'} bits (scales left aside)?",
        "answer": round(found, 3), "tolerance": round(0.03 * found, 4), "unit": "GB",
        "why": f"Two moments of {each // 2} byte(s) each: {each} · {millions} million = {found:.3f} GB.",
        "mistakes": {f"{found / 2:.4f}": "That is one moment; Adam keeps two."},
    }  # fmt: skip


def step_batch(draw: random.Random) -> dict[str, Any]:
    """Micro-batch, accumulation, devices."""
    micro, steps, devices = draw.randint(1, 8), draw.choice([2, 4, 8, 16]), draw.choice([2, 4, 8])
    found = micro * steps * devices
    return {
        "stem": f"`micro_batch_size: {micro}`, `gradient_accumulation_steps: {steps}`, and {devices} GPUs by data parallelism in Axolotl. How many examples does one optimiser step see?",
        "answer": float(found), "tolerance": 0.0, "unit": "examples",
        "why": f"{micro} · {steps} · {devices} = {found}.",
        "mistakes": {str(micro * steps): "Each GPU has its own micro-batches: multiply by their number."},
    }  # fmt: skip


def token_mean(draw: random.Random) -> dict[str, Any]:
    """The mean over tokens, not over parts."""
    few, many = draw.randint(2, 12), draw.randint(40, 120)
    first, second = draw.randint(20, 35) / 10, draw.randint(4, 12) / 10
    found = (few * first + many * second) / (few + many)
    return {
        "stem": f"A step has two parts: {few} trained tokens with a mean loss of {first}, and {many} with {second}. What is the step's loss?",
        "answer": round(found, 4), "tolerance": 0.01, "unit": "nats per token",
        "why": f"({few} · {first} + {many} · {second}) / {few + many} = {found:.3f}.",
        "mistakes": {f"{(first + second) / 2:.4f}": "That is the mean of the means: tokens of the short part weigh too much."},
    }  # fmt: skip


def zero_bytes(draw: random.Random) -> dict[str, Any]:
    """2 + 2 + 12 bytes, divided by stage."""
    stage, devices, size = draw.choice([1, 2, 3]), draw.choice([4, 8, 16, 32]), draw.choice([3, 7, 13, 34, 70])
    each = {1: 4 + 12 / devices, 2: 2 + 14 / devices, 3: 16 / devices}[stage]
    found = each * size
    return {
        "stem": f"A model of {size} billion parameters is trained with 2 bytes of weight, 2 of gradient and 12 of states each, on {devices} GPUs with stage {stage} of ZeRO. How many gigabytes (10⁹ bytes) does each keep?",
        "answer": round(found, 3), "tolerance": round(0.02 * found, 3), "unit": "GB",
        "why": f"{({1: '2 + 2 + 12 / n', 2: '2 + (2 + 12) / n', 3: '(2 + 2 + 12) / n'})[stage]} with n = {devices} is {each:g} bytes; times {size} is {found:.2f}.",
        "mistakes": {f"{16 * size}": "That is without division, as every GPU keeps it in plain data parallelism."},
    }  # fmt: skip


def padding_share(draw: random.Random) -> dict[str, Any]:
    """Places that hold padding."""
    lengths = [draw.randint(5, 60) * 10 for _ in range(draw.randint(3, 5))]
    lengths[0] = max(lengths) + 100
    places = max(lengths) * len(lengths)
    found = 100 * (1 - sum(lengths) / places)
    return {
        "stem": f"Rows of {', '.join(map(str, lengths))} tokens are filled up to the longest. Which share of the places is padding, in per cent?",
        "answer": round(found, 2), "tolerance": 0.6, "unit": "%",
        "why": f"{len(lengths)} · {max(lengths)} = {places} places for {sum(lengths)} tokens: {found:.1f} % are padding.",
    }  # fmt: skip
