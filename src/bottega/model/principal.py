"""The principal part of a matrix: its r greatest singular directions, for PiSSA (Meng et al. 2024, arXiv:2404.02948).

The exact decomposition of a large matrix takes minutes; a randomised one (Halko, Martinsson & Tropp 2011,
arXiv:0909.4061, algorithms 4.4 and 5.1) needs a few products with a narrow matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

OVERSAMPLING = 8  # further directions that are tried, so that the last ones that are kept are right too


@torch.no_grad()
def principal_part(matrix: Tensor, rank: int, iterations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """B (out, r) and A (r, in) whose product is the best approximation of `matrix` (out, in) of that rank.

    The singular values are shared: each of the two has their square roots. `iterations` 0 decomposes exactly.
    Both are in the precision in which the decomposition is done, at least float32.
    """
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    rank = min(rank, *wide.shape)
    if iterations == 0:
        left, values, right = torch.linalg.svd(wide, full_matrices=False)
    else:
        left, values, right = _randomised(wide, min(rank + OVERSAMPLING, *wide.shape), iterations, generator)
    roots = values[:rank].sqrt()
    return left[:, :rank] * roots, roots.unsqueeze(1) * right[:rank]


def _randomised(
    matrix: Tensor, width: int, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, width), singular values (width,) and Vᵀ (width, in), nearly those of `matrix`."""
    start = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis, _ = torch.linalg.qr(matrix @ start)
    for _ in range(iterations):
        across, _ = torch.linalg.qr(matrix.T @ basis)
        basis, _ = torch.linalg.qr(matrix @ across)
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ left, values, right
