import math
from collections import Counter


def train(texts: list[list[str]], labels: list[str]) -> object:
    vocabulary = {word for text in texts for word in text}
    counts = {label: Counter() for label in sorted(set(labels))}
    for text, label in zip(texts, labels):
        counts[label].update(text)
    priors = {label: labels.count(label) / len(labels) for label in counts}
    return vocabulary, counts, priors


def scores(model: object, text: list[str]) -> dict[str, float]:
    vocabulary, counts, priors = model
    found = {}
    for label, of_class in counts.items():
        total = sum(of_class.values()) + len(vocabulary)
        score = math.log(priors[label])
        for word in text:
            if word in vocabulary:
                score += math.log((of_class[word] + 1) / total)
        found[label] = score
    return found


def classify(model: object, text: list[str]) -> str:
    found = scores(model, text)
    return max(sorted(found), key=lambda label: found[label])
