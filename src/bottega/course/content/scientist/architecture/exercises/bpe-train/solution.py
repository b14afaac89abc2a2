from collections import Counter


def bpe_train(text: str, count: int) -> dict[tuple[int, int], int]:
    ids = list(text.encode("utf-8"))
    merges: dict[tuple[int, int], int] = {}
    while len(merges) < count and len(ids) > 1:
        counts = Counter(zip(ids, ids[1:]))
        pair = max(counts, key=counts.get)
        new = 256 + len(merges)
        merges[pair] = new
        ids = replaced(ids, pair, new)
    return merges


def replaced(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    found, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            found.append(new)
            i += 2
        else:
            found.append(ids[i])
            i += 1
    return found
