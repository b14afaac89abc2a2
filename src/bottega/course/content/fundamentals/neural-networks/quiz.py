"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any


def parameters_of(draw: random.Random) -> dict[str, Any]:
    """n·m + m for each layer."""
    sizes = [draw.choice([2, 4, 8, 10, 16]), draw.choice([8, 16, 32, 64]), draw.choice([2, 3, 5, 10])]
    found = sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))
    weights = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    return {
        "stem": f"How many parameters has a fully connected network {sizes[0]} → {sizes[1]} → {sizes[2]} with biases?",
        "answer": found, "tolerance": 0, "unit": "parameters",
        "why": f"{sizes[0]}·{sizes[1]} + {sizes[1]} + {sizes[1]}·{sizes[2]} + {sizes[2]} = {found}.",
        "mistakes": {str(weights): "Those are the weights alone: each neuron has a bias too."},
    }  # fmt: skip


def size_after_layers(draw: random.Random) -> dict[str, Any]:
    """(n s²/2)^(L/2) with ReLU."""
    width, layers = draw.choice([50, 100, 200, 400]), draw.choice([4, 6, 8, 10])
    share = draw.choice([0.5, 1, 3, 4])
    found = (share / 2) ** layers
    return {
        "stem": f"Weights of variance {share:g}/n, n = {width} inputs a neuron, ReLU, {layers} layers. By which factor does the mean square of the numbers change, from the first layer's input to the last one's output?",
        "answer": float(f"{found:.6g}"), "tolerance": 0.03 * found, "unit": "times",
        "why": f"Each layer multiplies it by n · {share:g}/n · 1/2 = {share / 2:g}; {share / 2:g} to the power of {layers} is {found:.4g}.",
        "mistakes": {f"{share**layers:.6g}": "ReLU sets half of the sums to zero: a factor of 1/2 in each layer."},
    }  # fmt: skip


def softmax_gradient(draw: random.Random) -> dict[str, Any]:
    """p − y."""
    p = [draw.randint(1, 9) for _ in range(3)]
    shares = [round(each / sum(p), 2) for each in p]
    shares[2] = round(1 - shares[0] - shares[1], 2)
    right, asked = draw.randrange(3), draw.randrange(3)
    found = round(shares[asked] - (asked == right), 2)
    names = ("first", "second", "third")
    return {
        "stem": f"A network gives three classes the probabilities {shares[0]}, {shares[1]} and {shares[2]}. The {names[right]} is right. What is the gradient of the cross-entropy by the score of the {names[asked]}?",
        "answer": found, "tolerance": 0.004, "unit": "",
        "why": f"p − y = {shares[asked]} − {int(asked == right)} = {found}.",
        "mistakes": {f"{-found}": "The sign: the gradient is p − y, and the step goes against it."},
    }  # fmt: skip


def squared_gradient(draw: random.Random) -> dict[str, Any]:
    """2 (wx − y) x."""
    w, x, y = draw.randint(-4, 4), draw.choice([-3, -2, 2, 3, 4]), draw.randint(-6, 6)
    if w * x == y:
        y += 1
    found = 2 * (w * x - y) * x
    return {
        "stem": f"L = (w·x − y)², with w = {w}, x = {x}, y = {y}. What is dL/dw?",
        "answer": found, "tolerance": 0, "unit": "",
        "why": f"2 (w·x − y) · x = 2 · ({w * x} − {y}) · {x} = {found}.".replace("− -", "+ ").replace("· -", "· −"),
        "mistakes": {str(2 * (w * x - y)): "The chain goes on through the product: times x."} if x != 1 else {},
    }  # fmt: skip


def gradient_of_reuse(draw: random.Random) -> dict[str, Any]:
    """y = a·b + a."""
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    return {
        "stem": f"y = a · b + a, with a = {a} and b = {b}. Which gradient does a have after y.backward()?",
        "answer": b + 1, "tolerance": 0, "unit": "",
        "why": f"From the product comes b = {b}, from the sum 1; a is used twice, so they are added.",
        "mistakes": {str(b): "That is the product's part alone.", "1": "That is the sum's part alone."},
    }  # fmt: skip


def momentum_speed(draw: random.Random) -> dict[str, Any]:
    """g·(1 + β + …)."""
    beta, steps, g = draw.choice([0.5, 0.8, 0.9]), draw.randint(2, 4), draw.choice([1, 2, 5])
    v = 0.0
    for _ in range(steps):
        v = beta * v + g
    return {
        "stem": f"v ← {beta} v + g, from v = 0, and g = {g} in every step. What is v after {steps} steps?",
        "answer": round(v, 6), "tolerance": 0.01, "unit": "",
        "why": " + ".join(f"{g}·{beta}^{i}" for i in range(steps)) + f" = {v:.4g}; in the long run it is {g / (1 - beta):.3g}.",
        "mistakes": {f"{g * steps}": "Each step the old sum is multiplied by the factor first."},
    }  # fmt: skip


def adam_first(draw: random.Random) -> dict[str, Any]:
    """rate · sign."""
    rate, g = draw.choice([0.1, 0.01, 0.001, 0.003]), draw.choice([0.002, 0.05, 3.0, 40.0, 700.0])
    return {
        "stem": f"By how much does the first step of Adam lower a weight whose gradient is {g:g}, with a rate of {rate:g}?",
        "answer": rate, "tolerance": 0.01 * rate, "unit": "",
        "why": "Corrected, m is g and v is g²: the step is the rate times g / |g|.",
        "mistakes": {f"{rate * g:g}": "That is the step of plain gradient descent."},
    }  # fmt: skip


def survivors(draw: random.Random) -> dict[str, Any]:
    """1 / (1 − p)."""
    p = draw.choice([0.1, 0.2, 0.25, 0.3, 0.4, 0.6, 0.75, 0.8])
    return {
        "stem": f"Dropout with p = {p}, as PyTorch has it. By what are the neurons that stay multiplied in training?",
        "answer": round(1 / (1 - p), 4), "tolerance": 0.004, "unit": "",
        "why": f"1 / (1 − {p}) = {1 / (1 - p):.4g}, so that the expectation stays.",
        "mistakes": {f"{1 / p:.4g}": "p is the chance to be dropped; divide by the chance to stay."},
    }  # fmt: skip


def patience_stop(draw: random.Random) -> dict[str, Any]:
    """The epoch of the lowest loss so far, when patience ends the run."""
    patience = draw.choice([2, 3])
    start, losses = draw.randint(70, 90), []
    low = draw.randint(2, 4)
    for i in range(low):
        losses.append((start - 6 * i - draw.randint(0, 3)) / 100)
    least = min(losses)
    losses += [round(least + draw.randint(1, 9) / 100, 2) for _ in range(patience)]
    losses += [round(least - 0.1, 2)]
    best, at, stopped = 9.0, 0, 0
    for epoch, loss in enumerate(losses, 1):
        if loss < best:
            best, at = loss, epoch
        elif epoch - at >= patience:
            stopped = epoch
            break
    listed = ", ".join(f"{each:.2f}" for each in losses)
    return {
        "stem": f"Validation losses, epoch by epoch: {listed}. The run ends as soon as {patience} epochs in a row have brought no new lowest. Of which epoch are the weights that are kept?",
        "answer": at, "tolerance": 0, "unit": "",
        "why": f"The lowest loss before the end, {best:.2f}, is epoch {at}'s. After epoch {stopped} the run is over, so nobody sees what would have come.",
        "mistakes": {str(stopped): "That is where it ends; kept are the best weights.", str(len(losses)): "The run ends before that epoch."},
    }  # fmt: skip


def gradient_shape(draw: random.Random) -> dict[str, Any]:
    """Number of entries of the gradient by W."""
    batch, before, after = draw.choice([8, 16, 32, 64]), draw.choice([3, 5, 10, 20]), draw.choice([2, 4, 7, 12])
    return {
        "stem": f"X is {batch} × {before}, Z = X W + b is {batch} × {after}. How many entries has the gradient of a loss by W?",
        "answer": before * after, "tolerance": 0, "unit": "entries",
        "why": f"As many as W: {before} × {after}. The batch is summed over in Xᵀ G.",
        "mistakes": {str(batch * after): "That is the gradient by Z.", str(batch * before): "That is the gradient by X."},
    }  # fmt: skip


def entropy_of_noise(draw: random.Random) -> dict[str, Any]:
    """H(noise)."""
    noise = draw.choice([0.05, 0.1, 0.2, 0.25, 0.3])
    found = -noise * math.log(noise) - (1 - noise) * math.log(1 - noise)
    return {
        "stem": f"Two classes; {noise:.0%} of the labels are exchanged at random. How many nats has the best honest prediction, on average?",
        "answer": round(found, 4), "tolerance": 0.01, "unit": "nats",
        "why": f"It says {1 - noise:.0%} for the true class: −{1 - noise:g} ln {1 - noise:g} − {noise:g} ln {noise:g} = {found:.3f}.",
        "mistakes": {"0": "Only who knows which labels are wrong has no loss, and that is learnt by heart."},
    }  # fmt: skip


def uniform_start(draw: random.Random) -> dict[str, Any]:
    """ln C."""
    classes = draw.choice([2, 3, 5, 20, 50, 100, 1000])
    return {
        "stem": f"Which cross-entropy, in nats, does a network have that gives {classes} classes the same probability?",
        "answer": round(math.log(classes), 4), "tolerance": 0.01, "unit": "nats",
        "why": f"−ln(1/{classes}) = ln {classes} = {math.log(classes):.3f}.",
        "mistakes": {f"{math.log2(classes):.4g}": "Those are bits; nats use the natural logarithm."},
    }  # fmt: skip
