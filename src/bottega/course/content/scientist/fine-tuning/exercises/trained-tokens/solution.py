IGNORED = -100


def ids_and_labels(turns: list[tuple[str, list[int]]], headers: dict[str, list[int]], stop: int) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for role, content in turns:
        ids += [*headers[role], *content, stop]
        labels += [IGNORED] * len(headers[role])
        labels += [*content, stop] if role == "assistant" else [IGNORED] * (len(content) + 1)
    return ids, labels
