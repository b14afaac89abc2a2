def pack(documents: list[list[int]], length: int) -> list[tuple[list[int], list[int], list[bool]]]:
    rows = []
    row, row_positions, row_mask = [], [], []
    for document in documents:
        rest = document
        while rest:
            part = rest[: length - len(row)]
            row += part
            row_positions += range(len(part))
            row_mask += [False] + [True] * (len(part) - 1)
            rest = rest[len(part):]
            if len(row) == length:
                rows.append((row, row_positions, row_mask))
                row, row_positions, row_mask = [], [], []
    if row:
        rows.append((row, row_positions, row_mask))
    return rows
