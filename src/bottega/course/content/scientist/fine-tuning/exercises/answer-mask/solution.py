SYSTEM, USER, ASSISTANT, END, PAD, IGNORE = 1, 2, 3, 4, 4, -100
MARKS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def encode(turns: list[tuple[str, list[int]]]) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for role, tokens in turns:
        if role not in MARKS:
            raise ValueError(f"there is no role {role!r}")
        ids.append(MARKS[role])
        labels.append(IGNORE)
        said = [*tokens, END] if role == "assistant" else list(tokens)
        ids += said
        labels += said if role == "assistant" else [IGNORE] * len(said)
    if all(label == IGNORE for label in labels):
        raise ValueError("nothing is trained")
    return ids, labels


def batch(rows: list[tuple[list[int], list[int]]], length: int) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    inputs, targets, masks = [], [], []
    for ids, labels in rows:
        ids, labels = ids[:length], labels[:length]
        if all(label == IGNORE for label in labels):
            continue
        missing = length - len(ids)
        inputs.append(ids + [PAD] * missing)
        targets.append(labels + [IGNORE] * missing)
        masks.append([1] * len(ids) + [0] * missing)
    return inputs, targets, masks
