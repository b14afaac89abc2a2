"""Classical models on digits, wine and diabetes.

1,797 written digits of 8 × 8 pixels come with scikit-learn. Neighbours, a tree, a forest and a logistic regression learn
them; k-means, written here in a few lines, finds groups without being told a digit; PCA and t-SNE draw them in a plane.
Wine shows what a scale does to distances, diabetes what a straight line can and cannot say.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from bottega.core.schema import Config
from bottega.core.view import Bar, Bars, Chart, Series, Table
from bottega.course.lab import Axes, Effect, Event, Point, Say, Show, Step, Value

BUDGET = 15


class Params(Config):
    """What can be changed."""

    clusters: int = Field(default=10, ge=2, le=40)
    """Groups for k-means to find. Try 20."""
    starts: int = Field(default=6, ge=1, le=20)
    """Random starts of k-means."""
    depth: int = Field(default=20, ge=1, le=30)
    """The deepest tree to grow. Try 3."""
    perplexity: float = Field(default=30, ge=2, le=100)
    """Perplexity of t-SNE: about how many neighbours each point has. Try 2."""


def run(params: Params) -> Iterator[Event]:
    """Fit, compare and look into classical models."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    parts = train_test_split(pixels, digits, test_size=0.25, stratify=digits, random_state=0)
    yield Say(f"{len(digits):,} digits, {len(parts[0]):,} to learn from and {len(parts[1])} to be tested with.")
    yield from straight_lines(parts)
    yield Step(1, 5, "lines")
    yield from trees(parts, params)
    yield Step(2, 5, "trees")
    yield from neighbours(parts)
    yield Step(3, 5, "neighbours")
    yield from clusters(pixels, digits, params)
    yield Step(4, 5, "clusters")
    yield from planes(pixels, digits, params)
    yield Step(5, 5, "planes")


def straight_lines(parts) -> Iterator[Event]:
    """Linear regression by its formula and by the library; logistic regression."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs, target = load_diabetes(return_X_y=True)
    split: Any = train_test_split(inputs, target, test_size=0.25, random_state=0)
    train, test, y_train, y_test = split
    model = LinearRegression().fit(train, y_train)
    padded = np.column_stack([np.ones(len(train)), train])
    weights = np.linalg.lstsq(padded, y_train, rcond=None)[0]
    apart = float(np.abs(weights - [model.intercept_, *model.coef_]).max() / np.abs(weights).max())
    error = float(np.sqrt(((model.predict(test) - y_test) ** 2).mean()))
    baseline = float(np.sqrt(((y_train.mean() - y_test) ** 2).mean()))
    yield Say(f"Diabetes: always saying the mean errs by {baseline:.1f}, a linear regression by {error:.1f}.")
    yield Value("line_error", error, "points", 0.02)
    yield Value("mean_error", baseline, "points", 0.02)
    yield Value("r2", model.score(test, y_test), "", 0.05)
    yield Effect("the least squares of numpy are the library's weights", apart < 1e-8)
    yield Effect("a line is better than the mean", error < 0.9 * baseline)

    yield from twins()
    train, test, y_train, y_test = parts
    logistic: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, y_train)
    said = logistic.predict_proba(test)
    yield Value("logistic", logistic.score(test, y_test), "accuracy", 0.02)
    yield Value("log_loss", log_loss(y_test, said), "nats", 0.15)
    yield Value("log_loss_start", float(np.log(10)), "nats", 0)
    yield Value("logistic_weights", logistic[-1].coef_.size + logistic[-1].intercept_.size, "numbers", 0)
    yield Effect("a logistic regression reads 94 % of the digits", logistic.score(test, y_test) > 0.94)
    yield Effect("its probabilities sum to 1", bool(np.allclose(said.sum(1), 1)))


def twins() -> Iterator[Event]:
    """Weights of two columns that say nearly the same, of five tables drawn alike."""
    rows, weights = [], []
    for seed in range(5):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=100)
        columns = np.column_stack([np.ones(100), x, x + 0.02 * draw.normal(size=100)])
        answer = x + 0.5 * draw.normal(size=100)
        found = np.linalg.lstsq(columns, answer, rcond=None)[0]
        error = float(np.sqrt(((columns @ found - answer) ** 2).mean()))
        weights.append(found[1:])
        rows.append((seed + 1, f"{found[1]:+.2f}", f"{found[2]:+.2f}", f"{found[1:].sum():+.2f}", f"{error:.2f}"))
    yield Show("twins", Table(
        "Two columns that are nearly the same", ["table", "weight of the first", "of the second", "their sum", "error"], rows,
        note="The answer is the first column plus noise of 0.5.",
    ))  # fmt: skip
    sums, first = np.sum(weights, axis=1), np.array(weights)[:, 0]
    yield Value("twins_largest", float(np.abs(weights).max()), "", 0.05)
    yield Effect("weights of twins differ by more than 1 from table to table", float(np.ptp(first)) > 1)
    yield Effect("their sum stays near the true 1", float(np.abs(sums - 1).max()) < 0.25)


def trees(parts, params: Params) -> Iterator[Event]:
    """One tree, deeper and deeper; then two hundred of them."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    train, test, y_train, y_test = parts
    yield Axes("depth", "A tree on digits", "depth", "accuracy")
    curve = []
    for depth in range(1, params.depth + 1):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(train, y_train)
        curve.append((tree.score(train, y_train), tree.score(test, y_test)))
        yield Point("depth", "digits it learned from", depth, curve[-1][0])
        yield Point("depth", "digits of the test", depth, curve[-1][1])
    yield Axes("forest", "A forest on digits", "trees", "accuracy on the test")
    forest = RandomForestClassifier(n_estimators=200, random_state=0, oob_score=True).fit(train, y_train)
    votes = np.zeros((len(test), 10))
    for count, tree in enumerate(forest.estimators_, start=1):
        votes += tree.predict_proba(test)
        if count in (1, 2, 3, 5, 8, 12, 20, 40, 80, 120, 200):
            yield Point("forest", "forest", count, float((votes.argmax(1) == y_test).mean()))
    alone = float(np.mean([(tree.predict(test) == y_test).mean() for tree in forest.estimators_]))
    score = float(forest.score(test, y_test))
    yield Value("tree_train", curve[-1][0], "accuracy", 0.02)
    yield Value("tree_test", curve[-1][1], "accuracy", 0.05)
    yield Value("tree_depth", params.depth, "levels", 0)
    yield Value("tree_alone", alone, "accuracy", 0.05)
    yield Value("forest", score, "accuracy", 0.02)
    yield Value("out_of_bag", float(forest.oob_score_), "accuracy", 0.02)
    yield Effect("a deep tree knows by heart what it learned", curve[-1][0] > 0.99)
    yield Effect("and reads at least 8 points fewer of the others", curve[-1][0] - curve[-1][1] > 0.08)
    yield Effect("a forest is at least 10 points better than one of its trees", score > alone + 0.1)
    yield Effect("what trees say of rows they have not seen is near the test", abs(forest.oob_score_ - score) < 0.03)


def neighbours(parts) -> Iterator[Event]:
    """Nearest neighbours of digits; of wine, with and without a scale."""
    from sklearn.datasets import load_wine
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test, y_train, y_test = parts
    distances = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
    order = y_train[np.argsort(distances, axis=1, kind="stable")]
    points = []
    for k in (1, 3, 5, 9, 15, 25, 51, 101, 301, 601):
        counts = np.stack([(order[:, :k] == digit).sum(1) for digit in range(10)], axis=1)
        points.append((k, float((counts.argmax(1) == y_test).mean())))
    yield Show("neighbours", Chart("Digits by their nearest neighbours", "k", "accuracy on the test",
                                   [Series("neighbours", points)], log_x=True))  # fmt: skip
    library = KNeighborsClassifier(1).fit(train, y_train).score(test, y_test)
    found = dict(points)
    yield Value("one", found[1], "accuracy", 0.01)
    yield Value("three", found[3], "accuracy", 0.01)
    yield Value("most", found[601], "accuracy", 0.1)
    yield Effect("our neighbours are the library's", abs(found[1] - library) < 0.005)
    yield Effect("one neighbour reads 97 %", found[1] > 0.97)
    yield Effect("601 neighbours read fewer", found[601] < found[1] - 0.05)

    wine, kind = load_wine(return_X_y=True)
    plain = float(cross_val_score(KNeighborsClassifier(5), wine, kind, cv=5).mean())
    scaled = float(cross_val_score(make_pipeline(StandardScaler(), KNeighborsClassifier(5)), wine, kind, cv=5).mean())
    spread = np.var(wine, axis=0)
    share = float(spread.max() / spread.sum())
    yield Show("wine", Bars("Wine by its five nearest neighbours", "accuracy", [
        Bar("as measured", plain, baseline=True), Bar("scaled", scaled)], percent=True))  # fmt: skip
    yield Value("wine_plain", plain, "accuracy", 0.02)
    yield Value("wine_scaled", scaled, "accuracy", 0.02)
    yield Value("wine_share", share, "of the squared distances", 0.01)
    yield Effect("one of 13 columns makes 95 % of the squared distances", share > 0.95)
    yield Effect("scaled, neighbours are at least 20 points better", scaled > plain + 0.2)


def clusters(pixels, digits, params: Params) -> Iterator[Event]:
    """k-means from several starts, watched."""
    yield Axes("inertia", "k-means: squared distance to the nearest centre", "step", "a digit")
    ends, falls = [], True
    best = nearest = np.zeros(len(pixels), int)
    for start in range(params.starts):
        draw = np.random.default_rng(start)
        centres = pixels[draw.choice(len(pixels), params.clusters, replace=False)]
        trace: list[float] = []
        while len(trace) < 2 or trace[-1] < trace[-2]:
            distances = (pixels**2).sum(1)[:, None] - 2 * pixels @ centres.T + (centres**2).sum(1)
            nearest = distances.argmin(1)
            trace.append(float(distances.min(1).mean()))
            centres = np.stack([
                pixels[nearest == j].mean(0) if (nearest == j).any() else centres[j] for j in range(params.clusters)
            ])  # fmt: skip
            if start < 3:
                yield Point("inertia", f"start {start + 1}", len(trace), trace[-1])
        falls &= all(later <= earlier + 1e-9 for earlier, later in zip(trace, trace[1:], strict=False))
        ends.append(trace[-1])
        if trace[-1] == min(ends):
            best = nearest
    counts = np.array([[int(((best == j) & (digits == d)).sum()) for d in range(10)] for j in range(params.clusters)])
    purity = float(counts.max(1).sum() / len(digits))
    rows = [(j + 1, int(row.sum()), int(row.argmax()), f"{row.max() / row.sum():.0%}") for j, row in enumerate(counts) if row.sum()]
    yield Show("groups", Table("The groups of the best start", ["group", "digits in it", "most of them", "share"], rows))
    yield Value("best_end", min(ends), "a digit", 0.01)
    yield Value("worst_end", max(ends), "a digit", 0.02)
    yield Value("purity", purity, "share", 0.1)
    yield Effect("a step never makes k-means worse", falls)
    yield Effect("different starts end differently", max(ends) > 1.001 * min(ends))
    yield Effect("two thirds of the digits lie with their own kind, without a label", purity > 2 / 3)


def planes(pixels, digits, params: Params) -> Iterator[Event]:
    """PCA by an SVD, and t-SNE, of some digits."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    centred = pixels - pixels.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    model: Any = PCA(10).fit(pixels)
    same = float(np.abs(np.abs(model.components_) - np.abs(axes[:10])).max())
    so_far = np.cumsum(shares)
    yield Show("variance", Chart("What the first components keep", "components", "share of the variance",
                                 [Series("kept", [(float(i + 1), float(so_far[i])) for i in range(64)])]))  # fmt: skip
    some = np.random.default_rng(0).choice(len(pixels), 500, replace=False)
    flat: dict[str, Any] = {"all 64 pixels": pixels[some], "two components of PCA": centred[some] @ axes[:2].T}
    flat["t-SNE"] = TSNE(perplexity=params.perplexity, init="pca", random_state=0, max_iter=500).fit_transform(pixels[some])
    share = {name: alike(points, digits[some]) for name, points in flat.items()}
    pairs = np.triu_indices(len(some), 1)
    apart = {name: np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))[pairs] for name, points in flat.items()}
    agree = {name: float(np.corrcoef(apart["all 64 pixels"], each)[0, 1]) for name, each in apart.items()}
    yield Show("kept", Table(
        "What a picture in the plane keeps of 500 digits", ["picture", "nearest is the same digit", "correlation of distances"],
        [(name, f"{share[name]:.0%}", f"{agree[name]:.2f}") for name in flat],
    ))  # fmt: skip
    yield Show("planes", Bars("Digits whose nearest neighbour is the same digit", "share",
                              [Bar(name, value) for name, value in share.items()], percent=True))  # fmt: skip
    noise = np.random.default_rng(0).normal(size=(300, 64))
    moved = TSNE(perplexity=2, init="pca", random_state=0, max_iter=500).fit_transform(noise)
    seen = {name: grouped(points) for name, points in (("before", noise), ("after", moved))}
    yield Value("noise_before", abs(seen["before"]), "silhouette", 20)
    yield Value("noise_after", seen["after"], "silhouette", 0.2)
    yield Effect("t-SNE with a small perplexity makes groups of noise", seen["after"] > seen["before"] + 0.3)
    yield Value("two_keep", float(so_far[1]), "share", 0.01)
    yield Value("components_90", int((so_far < 0.9).sum() + 1), "components", 0)
    yield Value("alike_all", share["all 64 pixels"], "share", 0.02)
    yield Value("alike_pca", share["two components of PCA"], "share", 0.1)
    yield Value("alike_tsne", share["t-SNE"], "share", 0.05)
    yield Value("agree_pca", agree["two components of PCA"], "correlation", 0.05)
    yield Value("agree_tsne", agree["t-SNE"], "correlation", 0.2)
    yield Effect("the SVD gives the components of the library, up to signs", same < 1e-6)
    yield Effect("two components keep less than a third of the variance", bool(so_far[1] < 1 / 3))
    yield Effect("neighbours survive t-SNE far better than PCA", share["t-SNE"] > share["two components of PCA"] + 0.2)


def grouped(points: np.ndarray) -> float:
    """How clearly 40 groups of k-means are apart: the silhouette, near 0 where there are none, at most 1."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    settings: Any = {"n_init": 3, "random_state": 0}
    return float(silhouette_score(points, KMeans(40, **settings).fit_predict(points)))


def alike(points: np.ndarray, digits: np.ndarray) -> float:
    """Share of points whose nearest other point is of the same digit."""
    distances = ((points[:, None, :] - points[None, :, :]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return float((digits[distances.argmin(1)] == digits).mean())
