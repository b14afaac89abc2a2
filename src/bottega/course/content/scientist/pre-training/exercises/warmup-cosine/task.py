"""The learning rate as a factor of its peak: a linear warm-up, then a cosine down to a floor."""



def factor(step: int, steps: int, warmup: int, floor: float) -> float:
    """For `step` of `steps`, counted from 0; `warmup` steps rise to 1, then it falls to `floor` at step `steps`."""
    raise NotImplementedError
