"""What the formats share that store one weight as several tensors: codes, scales, zero points.

A weight is (out, in) throughout: a row per output, scales along the inputs. `Info` is what a
header tells of a tensor, so that everything can be checked before anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bottega.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Info = tuple[tuple[int, ...], str]
"""Shape and dtype (torch's name, such as "int32") of a stored tensor."""


class Sharing(NamedTuple):
    """Which values share a scale, as far as a config says so: groups of inputs, or blocks of outputs × inputs."""

    group_size: int | None = None
    block: tuple[int, int] | None = None


def require(fits: bool, problem: str) -> None:
    """Raise UserError saying `problem` if it does not fit."""
    if not fits:
        raise UserError(problem)


def require_part(name: str, info: Info, shape: tuple[int, ...], *dtypes: str) -> None:
    """Raise UserError unless a stored part has this shape and one of these dtypes."""
    require(info[0] == shape, f"{name} has the shape {list(info[0])} instead of {list(shape)}")
    require(info[1] in dtypes, f"{name} has the dtype {info[1]} instead of {' or '.join(dtypes)}")


def columns_per_group(columns: int, groups: int, group_size: int | None) -> int:
    """How many inputs share a scale: what the config says if it fits, else equal groups; raises UserError.

    A config's size may hold for most modules and not for this one; only the last group may be
    shorter. None or a size below 1 means "not said".
    """
    require(groups > 0, "there are no scales")
    if group_size is not None and group_size > 0 and -(-columns // group_size) == groups:
        return group_size
    require(columns % groups == 0, f"{columns} inputs cannot be divided into {groups} groups")
    return columns // groups


def group_indices(columns: int, groups: int, group_size: int | None, stored: Tensor | None = None) -> Tensor:
    """The group of each input (in,): as `stored` (in any order: "act-order"), else one after the other."""
    import torch

    if stored is None:
        return torch.arange(columns) // columns_per_group(columns, groups, group_size)
    indices = stored.long()
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < groups:
        raise UserError(f"the group index names groups that are not among the {groups} stored")
    return indices


def scaled(codes: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
    """(codes − zeros) · scales in float32; scales and zeros have codes' shape, or spread to it."""
    values = codes.float()
    if zeros is not None:
        values = values - zeros.float()
    return values.mul_(scales.float())


def check_spread(name: str, info: Info, shape: tuple[int, int], sharing: Sharing) -> None:
    """Raise UserError unless scales of this shape can be `spread` over a weight of `shape`."""
    try:
        _spread_kind(info[0], shape, sharing)
    except UserError as error:
        raise UserError(f"{name} of shape {list(info[0])}: {error.message}") from None


def spread(scales: Tensor, shape: tuple[int, int], sharing: Sharing, stored: Tensor | None = None) -> Tensor:
    """Scales as something that multiplies a weight of `shape` (out, in).

    One for all: (), (1,), (1, 1). One for an output: (out,), (out, 1). One for a group of inputs:
    (out, groups), the groups in order or as `stored`. One for a block: (⌈out/b⌉, ⌈in/c⌉).
    """
    kind = _spread_kind(tuple(scales.shape), shape, sharing)
    if kind == "tensor":
        return scales.reshape(1, 1)
    if kind == "output":
        return scales.reshape(-1, 1)
    if kind == "group":
        return scales[:, group_indices(shape[1], scales.shape[1], sharing.group_size, stored)]
    assert sharing.block is not None
    rows = scales.repeat_interleave(sharing.block[0], dim=0)[: shape[0]]
    return rows.repeat_interleave(sharing.block[1], dim=1)[:, : shape[1]]


def _spread_kind(scales: tuple[int, ...], shape: tuple[int, int], sharing: Sharing) -> str:
    outputs, inputs = shape
    if scales in ((), (1,), (1, 1)):
        return "tensor"
    if scales in ((outputs,), (outputs, 1)):
        return "output"
    if sharing.block and scales == (-(-outputs // sharing.block[0]), -(-inputs // sharing.block[1])):
        return "block"
    if len(scales) == 2 and scales[0] == outputs:
        columns_per_group(inputs, scales[1], sharing.group_size)
        return "group"
    raise UserError(f"it does not fit a weight of {list(shape)}")
