def bytes_on_fullest(n: int, gpus: int, stage: int) -> int:
    if stage not in (0, 1, 2, 3) or gpus < 1:
        raise ValueError("a stage from 0 to 3, and at least one GPU")
    share = -(-n // gpus)
    return 2 * (share if stage >= 3 else n) + 2 * (share if stage >= 2 else n) + 12 * (share if stage >= 1 else n)
