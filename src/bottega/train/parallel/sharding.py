"""zero2 and zero3: gradients, optimiser states and weights cut into rows, by torch's FSDP2 (`fully_shard`).

Each parameter is cut along its first dimension, process r holds the r-th piece. Before a layer computes, its weights
are gathered; behind its backward pass its gradients are summed into the pieces. zero3 forgets a layer's weights
as soon as it has computed, and gathers them again for the backward pass; zero2 keeps them until then (Rajbhandari et
al. 2019, arXiv:1910.02054, "P_os+g" and "P_os+g+p"; in FSDP's words reshard_after_forward off and on).

The model file knows nothing of this. The optimisers move the pieces as plain tensors: they share their memory with
FSDP's, so that any optimiser that moves each value by itself can be used, and nothing is slower for being cut.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from bottega.model.decoder import Decoder
from bottega.train.parallel.ranks import Held, Replicas, clip_pieces, equal_turns
from bottega.train.parallel_config import ParallelSettings

T = TypeVar("T")


class Shards(Replicas):
    """Each process holds some rows of every parameter."""

    def __init__(self, settings: ParallelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.forgets = settings.strategy == "zero3"

    def wrap(self, model: Decoder) -> Decoder:
        """Cut every parameter; the model computes as before, together with the other processes."""
        super().wrap(model)
        self._plain = _without_weights(model)
        mesh = init_device_mesh(torch.device(self.device).type, (self.world,))
        # What is no floating-point number (a base in four bits, say) stays whole: it is small, and never trained.
        whole = {parameter for parameter in model.parameters() if not parameter.is_floating_point()}
        lower = self.settings.gather_dtype == "bfloat16"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if lower else MixedPrecisionPolicy()
        for block in model.model.layers:
            fully_shard(block, mesh=mesh, reshard_after_forward=self.forgets, mp_policy=policy, ignored_params=whole)
        # Embedding and head stay gathered from the first layer to the loss, which takes the head's weight itself.
        fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=whole)
        for name in ("hidden", "advance"):
            register_fsdp_forward_method(model, name)
        for module in _sharded(model):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            module.set_reduce_scatter_unused_params(True)  # an expert that only another process's tokens chose
        self._pieces = [
            (name, parameter, nn.Parameter(parameter.to_local().detach(), requires_grad=True))
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and isinstance(parameter, DTensor)
        ]
        return model

    def adopt(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Give each optimiser this process's pieces in place of the parameters; states of others are never made."""
        piece_of = {id(parameter): piece for _, parameter, piece in self._pieces}
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["params"] = [piece_of[id(p)] for p in group["params"] if piece_of[id(p)].numel()]
        return optimizers

    def turns(self, parts: Sequence[T], spare: Sequence[T] = ()) -> list[tuple[T, float]]:
        """The parts, and the last one again for nothing, until all processes have as many."""
        return equal_turns(self, parts, spare, self.settings.strategy)

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:  # noqa: ARG002
        """Hand the pieces their gradients; they were summed in the backward passes."""
        for _, parameter, piece in self._pieces:
            gradient = cast("DTensor | None", parameter.grad)
            piece.grad = None if gradient is None else gradient.to_local()
            parameter.grad = None

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:  # noqa: ARG002
        """Scale the whole gradient down to the norm `limit`; returns what its norm was."""
        return clip_pieces(self, [piece.grad for _, _, piece in self._pieces if piece.grad is not None], limit)

    def finish_step(self) -> None:
        """The pieces are FSDP's own memory: nothing is to be sent."""

    def held(self, model: nn.Module) -> list[Held]:  # noqa: ARG002
        """Rows of every trained parameter; a process may have none of a small one."""
        found = []
        for name, parameter, piece in self._pieces:
            rows = -(-parameter.shape[0] // self.world)
            has = piece.numel() > 0
            start = min(rows * self.rank, parameter.shape[0])
            found.append(Held(name, piece, start, tuple(parameter.shape), moves=has, writes=has))
        return found

    @contextmanager
    def gathered(self, model: Decoder) -> Iterator[None]:
        """Within it every process has the whole weights, and may use the model without the others."""
        for module in _sharded(model):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in _sharded(model):
                module.set_reshard_after_forward(self.forgets and module is not model, recurse=False)
                module.reshard()

    def unwrap(self, model: Decoder) -> Decoder:
        """The plain model with its whole weights in the first process; the others get one without weights."""
        for module in _sharded(model):
            module.reshard()
        places = dict(self._plain.named_parameters())
        for name, parameter in model.named_parameters():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if self.is_first:
                fresh = nn.Parameter(whole.detach(), requires_grad=parameter.requires_grad)
                torch.utils.swap_tensors(places[name], fresh)
        return self._plain


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _without_weights(model: Decoder) -> Decoder:
    """A copy of the model whose parameters take no memory; buffers are shared with it. Tied weights stay tied."""
    memo: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)
