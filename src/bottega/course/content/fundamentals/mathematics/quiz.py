"""Questions whose numbers are drawn and whose answers are computed."""

import math
import random
from typing import Any

Made = dict[str, Any]


def _made(stem: str, answer: float, why: str, *, tolerance: float | None = None, unit: str = "", mistakes: dict[str, str] | None = None) -> Made:
    """A numeric question; a mistake that is the answer is none."""
    tolerance = (0.0 if float(answer).is_integer() else max(0.01 * abs(answer), 1e-6)) if tolerance is None else tolerance
    kept = {key: said for key, said in (mistakes or {}).items() if abs(float(key) - answer) > tolerance + 0.005 * abs(answer)}
    return {"stem": stem, "answer": round(answer, 6), "tolerance": tolerance, "unit": unit, "why": why, "mistakes": kept}


def dot_product(draw: random.Random) -> Made:
    """Σ a b."""
    a, b = ([draw.choice([-3, -2, -1, 1, 2, 3, 4]) for _ in range(3)] for _ in range(2))
    parts = [x * y for x, y in zip(a, b, strict=True)]
    return _made(f"What is the product of the vectors ({a[0]}, {a[1]}, {a[2]}) and ({b[0]}, {b[1]}, {b[2]})?", sum(parts),
                 f"{parts[0]} + {parts[1]} + {parts[2]} = {sum(parts)}.")  # fmt: skip


def determinant(draw: random.Random) -> Made:
    """ad - bc."""
    a, b, c, d = (draw.randint(-4, 6) for _ in range(4))
    return _made(f"By which factor, with its sign, does the matrix with the rows ({a}, {b}) and ({c}, {d}) change areas?", a * d - b * c,
                 f"The determinant: {a} · {d} − {b} · {c} = {a * d - b * c}.", mistakes={str(a * d + b * c): "The second product is taken away."})  # fmt: skip


def eigenvalue_of_two(draw: random.Random) -> Made:
    """Of (a, b; b, a): a + b and a - b."""
    a, b = draw.randint(1, 9), draw.randint(1, 9)
    return _made(f"What is the larger eigenvalue of the matrix with the rows ({a}, {b}) and ({b}, {a})?", a + b,
                 f"(1, 1) is stretched by {a} + {b} = {a + b}, (1, −1) by {a} − {b} = {a - b}.", mistakes={str(a): "That is on the diagonal; the matrix is not diagonal."})  # fmt: skip


def rank_numbers(draw: random.Random) -> Made:
    """r (m + n + 1)."""
    rows, columns, rank = draw.choice([100, 200, 500, 1000]), draw.choice([100, 300, 400]), draw.choice([2, 5, 10, 20])
    found = rank * (rows + columns + 1)
    return _made(f"A table of {rows} × {columns} is kept as {rank} singular values with a column and a row each. How many numbers are that?", found,
                 f"{rank} · ({rows} + {columns} + 1) = {found:,}, where the table has {rows * columns:,}.", unit="numbers",
                 mistakes={str(rank * (rows + columns)): "The singular values themselves are numbers too."})  # fmt: skip


def chain_rule(draw: random.Random) -> Made:
    """d/dx (a x + b)² = 2 a (a x + b)."""
    a, b, x = draw.randint(2, 5), draw.randint(-3, 4), draw.randint(1, 3)
    found = 2 * a * (a * x + b)
    return _made(f"f(x) = ({a}x {'+' if b >= 0 else '−'} {abs(b)})². What is the derivative at x = {x}?", found,
                 f"Outer 2 · {a * x + b}, inner {a}: {found}.", mistakes={str(2 * (a * x + b)): f"The inner derivative, {a}, is missing."})  # fmt: skip


def gradient_entry(draw: random.Random) -> Made:
    """∂/∂x of a x² y."""
    a, x, y = draw.randint(2, 5), draw.randint(1, 4), draw.randint(2, 5)
    found = 2 * a * x * y
    return _made(f"f(x, y) = {a} x² y. What is the partial derivative by x at ({x}, {y})?", found,
                 f"y is a constant here: 2 · {a} · x · y = {found}.", mistakes={str(a * x * x): "That is the derivative by y."})  # fmt: skip


def largest_rate(draw: random.Random) -> Made:
    """2 / λ_max."""
    a, b = draw.choice([1, 2, 4]), draw.choice([10, 20, 50, 100, 400])
    return _made(f"f = ½ ({a} x² + {b} y²). Below which learning rate does gradient descent converge?", 2 / b,
                 f"2 / λ_max = 2 / {b} = {2 / b:g}.", mistakes={f"{2 / a:g}": "The steepest direction decides.", f"{1 / b:g}": "That converges too, but it is not the limit."})  # fmt: skip


def geometric_series(draw: random.Random) -> Made:
    """1 / (1 - r)."""
    rate = draw.choice([0.2, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99])
    return _made(f"What is 1 + {rate} + {rate}² + {rate}³ + …?", 1 / (1 - rate), f"1 / (1 − {rate}) = {1 / (1 - rate):g}.", tolerance=0.01 / (1 - rate))  # fmt: skip


def expectation(draw: random.Random) -> Made:
    """Σ p x."""
    values = draw.sample(range(-2, 9), 3)
    chances = draw.choice([(0.5, 0.3, 0.2), (0.6, 0.2, 0.2), (0.1, 0.4, 0.5)])
    found = sum(v * p for v, p in zip(values, chances, strict=True))
    return _made(f"A number is {values[0]}, {values[1]} or {values[2]} with the chances {chances[0]}, {chances[1]} and {chances[2]}. What is its expectation?", found,
                 f"Each value times its chance: {found:g}.", tolerance=0.011 if abs(found) > 0.1 else 0.001, mistakes={f"{sum(values) / 3:.2f}": "The chances differ."})  # fmt: skip


def spread_of_mean(draw: random.Random) -> Made:
    """σ / √n."""
    deviation, count = draw.choice([2, 3, 5, 10, 12]), draw.choice([4, 16, 25, 100, 400])
    found = deviation / count**0.5
    return _made(f"One number has a standard deviation of {deviation}. Which has the mean of {count} independent ones?", found,
                 f"{deviation} / √{count} = {found:g}.", mistakes={f"{deviation / count:g}": "Divided by the root of n: variances are divided by n."})  # fmt: skip


def covariance_of_sum(draw: random.Random) -> Made:
    """Var(X + Y) = a + b + 2c."""
    a, b, c = draw.randint(3, 9), draw.randint(3, 9), draw.choice([-2, -1, 1, 2])
    return _made(f"Var(X) = {a}, Var(Y) = {b}, Cov(X, Y) = {c}. What is Var(X + Y)?", a + b + 2 * c,
                 f"{a} + {b} + 2 · {c} = {a + b + 2 * c}.", mistakes={str(a + b): "That holds for uncorrelated numbers.", str(a + b + c): "The covariance counts twice."})  # fmt: skip


def likeliest_share(draw: random.Random) -> Made:
    """h / n."""
    count = draw.choice([8, 10, 20, 25, 40])
    heads = draw.randint(1, count - 1)
    return _made(f"{heads} of {count} throws are heads. Which chance of heads makes that likeliest?", heads / count,
                 f"{heads}/{count} = {heads / count:g}.", mistakes={f"{(heads + 1) / (count + 2):.3f}": "That is a posterior mean, of an even prior."})  # fmt: skip


def beta_posterior(draw: random.Random) -> Made:
    """(a + h) / (a + b + n)."""
    prior, count = draw.choice([1, 2, 5]), draw.choice([5, 10, 20])
    heads = draw.randint(1, count)
    found = (prior + heads) / (2 * prior + count)
    return _made(f"Before, the chance of heads is Beta({prior}, {prior}). {heads} of {count} throws are heads. What is the posterior's mean?", found,
                 f"({prior} + {heads}) / ({2 * prior} + {count}) = {found:.3f}.", tolerance=0.005, mistakes={f"{heads / count:.3f}": "That is the likeliest value; the prior counts too."})  # fmt: skip


def bayes_test(draw: random.Random) -> Made:
    """p s / (p s + (1 - p) f)."""
    ill, hits, alarms = draw.choice([0.01, 0.02, 0.05]), draw.choice([0.9, 0.95, 0.99]), draw.choice([0.05, 0.1])
    found = 100 * ill * hits / (ill * hits + (1 - ill) * alarms)
    return _made(f"{100 * ill:g} % are ill. A test finds {100 * hits:g} % of the ill, and calls {100 * alarms:g} % of the healthy ill. "
                 "How many per cent of those with a positive test are ill?", found,
                 f"{ill * hits:.4f} / ({ill * hits:.4f} + {(1 - ill) * alarms:.4f}) = {found:.1f} %.", tolerance=0.03 * found, unit="%",
                 mistakes={f"{100 * hits:g}": "That is how many of the ill have a positive test: the other way round."})  # fmt: skip


def standard_error(draw: random.Random) -> Made:
    """√(p (1 - p) / n), in points."""
    share, count = draw.choice([0.2, 0.5, 0.8, 0.9]), draw.choice([100, 400, 900, 1600])
    found = 100 * 1.96 * math.sqrt(share * (1 - share) / count)
    return _made(f"A model is right in {100 * share:g} % of {count} questions. How wide is a 95 % interval on either side, in points (1.96 standard errors)?", found,
                 f"1.96 · √({share} · {1 - share:.1f} / {count}) = {found:.2f} points.", tolerance=0.03 * found, unit="points",
                 mistakes={f"{found / 1.96:.2f}": "That is one standard error."})  # fmt: skip


def entropy_even(draw: random.Random) -> Made:
    """ln n, or log2 n."""
    count, bits = draw.choice([2, 4, 8, 16, 32, 64]), draw.random() < 0.5
    found = math.log2(count) if bits else math.log(count)
    other = math.log(count) if bits else math.log2(count)
    return _made(f"{count} outcomes are equally likely. What is their entropy, in {'bits' if bits else 'nats'}?", found,
                 f"{'log₂' if bits else 'ln'} {count} = {found:.3f}.", tolerance=0.01, mistakes={f"{other:.3f}": f"Those are {'nats' if bits else 'bits'}."})  # fmt: skip
