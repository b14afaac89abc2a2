"""Bytes on the fullest GPU, by the stage of ZeRO (Rajbhandari et al. 2020)."""


def bytes_on_fullest(n: int, gpus: int, stage: int) -> int:
    """Bytes of weights, gradients and states of `n` parameters: mixed precision, AdamW, activations left out.

    stage 0 divides nothing, 1 the states, 2 the gradients too, 3 the weights too. Raises ValueError for other stages
    and for fewer than one GPU.
    """
    raise NotImplementedError
