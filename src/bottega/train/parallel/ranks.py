"""The processes of a run, as its loop sees them; and the plain ways for them to share it.

    Ranks           one process alone: every call leaves things as they are
    Replicas        ddp: each process has everything, and its share of a step's examples; gradients are added up
    SplitOptimizer  zero1 (Rajbhandari et al. 2019, arXiv:1910.02054, "P_os"): each parameter has one process that
                    keeps its optimiser states, gets its summed gradient, moves it, and sends it to the others

Everything goes by sums, never by means over processes: the loop divides by what the whole step's loss is a mean over,
so that two processes do exactly what one does that accumulates, however unevenly the examples fall.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bottega.core.errors import UserError
from bottega.model.decoder import Decoder

T = TypeVar("T")
BUCKET_VALUES = 1 << 24  # values that are sent at once: large enough to fill a network, small beside a model


@dataclass(frozen=True)
class Held:
    """What this process holds of one trained parameter.

    Attributes:
        name: the parameter's.
        tensor: what the optimisers move here: the parameter, or so many of its rows.
        start: the first of those rows.
        shape: of the whole parameter.
        moves: whether this process keeps its optimiser states.
        writes: whether this process is the one that saves it.
    """

    name: str
    tensor: nn.Parameter
    start: int
    shape: tuple[int, ...]
    moves: bool
    writes: bool


class Ranks:
    """One process alone."""

    rank, world = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks, and writes what is written once."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> list[T]:
        """This process's part of a step's rows (or examples, or prompts): every `world`-th; it may be empty."""
        return list(rows[self.rank :: self.world])

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes, in float64."""
        return list(values)

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value` (plain data that JSON knows), in the order of ranks."""
        return [value]

    def barrier(self) -> None:
        """Wait until every process is here."""

    def after_first(self, work: Callable[[], T]) -> T:
        """What `work` finds, done by the first process alone and then, when what it made is there, by the others."""
        if self.is_first:
            found = work()
            self.barrier()
            return found
        self.barrier()
        return work()

    def wrap(self, model: Decoder) -> Decoder:
        """Make the model ready, before its optimisers are made and behind anything that adds parameters."""
        return model

    def adopt(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Leave each optimiser what this process is to move."""
        return optimizers

    def turns(self, parts: Sequence[T], spare: Sequence[T] = ()) -> list[tuple[T, float]]:  # noqa: ARG002
        """What this process takes through the model, and what each loss counts: 1 for its parts, 0 where it only
        keeps pace with processes that have more and cannot compute a layer without it (with `spare` if it has none)."""
        return [(part, 1.0) for part in parts]

    def backward(self, loss: Tensor, is_last: bool) -> None:  # noqa: ARG002
        """Add the gradients of a part of the step's loss, the last of this process or not."""
        loss.backward()

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes, behind a step's last backward pass."""

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:
        """Scale the whole gradient down to the norm `limit`; returns what its norm was."""
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def finish_step(self) -> None:
        """Behind the optimisers' step: all processes have the same weights again."""

    def held(self, model: nn.Module) -> list[Held]:
        """What is trained of the model, as far as this process has it; one entry for a parameter with two names."""
        return [
            Held(name, parameter, 0, tuple(parameter.shape), moves=True, writes=self.is_first)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        ]

    @contextmanager
    def gathered(self, model: Decoder) -> Iterator[None]:  # noqa: ARG002
        """Within it every process has the whole weights, and may use the model without the others."""
        yield

    def unwrap(self, model: Decoder) -> Decoder:
        """The plain model with whole weights, behind the last step; every process calls it, the first may use it."""
        return model


class Replicas(Ranks):
    """Data parallelism: all of the model in every process."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes, in float64."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every process's `value` (plain data that JSON knows), in the order of ranks; sent as text, never pickled."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode() or b" "), dtype=torch.uint8).to(self.device)
        lengths = torch.zeros(self.world, dtype=torch.int64, device=self.device)
        lengths[self.rank] = len(text)
        dist.all_reduce(lengths)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=self.device)
        padded[: len(text)] = text
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        ends = lengths.tolist()
        return [json.loads(bytes(part[:end].tolist())) for part, end in zip(found, ends, strict=True)]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum([0.0])

    def wrap(self, model: Decoder) -> Decoder:
        """Every process starts from the first one's weights."""
        self._send(trained_of(model), source=0)
        return model

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the processes."""
        for bucket in buckets(self._gradients(list(parameters))):
            with packed(bucket) as flat:
                dist.all_reduce(flat)

    def _gradients(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Gradients of what has one in some process: all processes list the same. What none has used stays without."""
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=self.device)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        found = []
        for parameter, is_used in zip(parameters, used.tolist(), strict=True):
            if is_used:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                found.append(parameter.grad)
        return found

    def _send(self, tensors: Sequence[Tensor], source: int) -> None:
        for bucket in buckets([tensor.detach() for tensor in tensors]):
            with packed(bucket) as flat:
                dist.broadcast(flat, source)


class SplitOptimizer(Replicas):
    """ZeRO-1: whole parameters are dealt out, so any optimiser can move them (Muon needs the whole matrix)."""

    def wrap(self, model: Decoder) -> Decoder:
        """Deal the parameters out, the same way in every process."""
        super().wrap(model)
        self.dealt = deal(trained_of(model), self.world)
        self._own = {id(parameter) for parameter in self.dealt[self.rank]}
        return model

    def adopt(self, optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
        """Leave each optimiser this process's parameters; states of others are never made."""
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in self._own]
        return optimizers

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:  # noqa: ARG002
        """Sum each gradient in the process that moves its parameter; the others forget it."""
        for owner, dealt in enumerate(self.dealt):
            for bucket in buckets(self._gradients(dealt)):
                with packed(bucket) as flat:
                    dist.reduce(flat, owner)
            if owner != self.rank:
                for parameter in dealt:
                    parameter.grad = None

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> float:  # noqa: ARG002
        """Scale the whole gradient down to the norm `limit`; returns what its norm was."""
        return clip_pieces(self, [p.grad for p in self.dealt[self.rank] if p.grad is not None], limit)

    def finish_step(self) -> None:
        """Each process sends what it has moved."""
        for owner, dealt in enumerate(self.dealt):
            self._send(dealt, owner)

    def held(self, model: nn.Module) -> list[Held]:
        """All of the weights; a parameter's owner saves it, and its states."""
        own = ((held, id(held.tensor) in self._own) for held in super().held(model))
        return [Held(held.name, held.tensor, 0, held.shape, moves=owns, writes=owns) for held, owns in own]


def equal_turns(ranks: Ranks, parts: Sequence[T], spare: Sequence[T], strategy: str) -> list[tuple[T, float]]:
    """The parts, and the last one again for nothing, until all processes have as many."""
    missing = max(ranks.gather(len(parts))) - len(parts)
    idle = list(parts[-1:] or spare[:1]) * missing
    if len(idle) < missing:
        raise UserError(
            f"there is nothing to train on in this step for process {ranks.rank} of {ranks.world}, and with {strategy} "
            "all processes compute or none",
            hint="Give a larger batch_size or tokens_per_step, or strategy: ddp or zero1.",
        )
    return [*((part, 1.0) for part in parts), *((part, 0.0) for part in idle)]


def trained_of(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, each once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def clip_pieces(ranks: Ranks, gradients: Sequence[Tensor], limit: float) -> float:
    """Scale a gradient that the processes hold pieces of down to the norm `limit`; returns what its norm was."""
    squares = sum((gradient.norm(dtype=torch.float32).double().square() for gradient in gradients), torch.tensor(0.0))
    norm = ranks.sum([float(squares)])[0] ** 0.5
    factor = min(1.0, limit / (norm + 1e-6)) if norm == norm else norm  # as torch has it; what is not finite stays so
    if factor != 1.0:
        for gradient in gradients:
            gradient.mul_(factor)
    return norm


def deal(parameters: Sequence[nn.Parameter], world: int) -> list[list[nn.Parameter]]:
    """The parameters in `world` lots of about equal size: largest first, each into the smallest lot so far."""
    lots: list[list[nn.Parameter]] = [[] for _ in range(world)]
    sizes = [0] * world
    for parameter in sorted(parameters, key=lambda parameter: -parameter.numel()):
        lot = sizes.index(min(sizes))
        lots[lot].append(parameter)
        sizes[lot] += parameter.numel()
    return lots


def buckets(tensors: Sequence[Tensor], values: int = BUCKET_VALUES) -> list[list[Tensor]]:
    """Tensors of one type together, so many values at a time; a larger tensor is alone."""
    by_type = defaultdict[torch.dtype, list[Tensor]](list)
    for tensor in tensors:
        by_type[tensor.dtype].append(tensor)
    found: list[list[Tensor]] = []
    for alike in by_type.values():
        size = values
        for tensor in alike:
            if size + tensor.numel() > values:
                found.append([])
                size = 0
            found[-1].append(tensor)
            size += tensor.numel()
    return found


@contextmanager
def packed(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """The tensors as one flat one; what is done to it within is theirs afterwards."""
    if len(tensors) == 1 and tensors[0].is_contiguous():
        yield tensors[0].view(-1)
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    yield flat
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, part in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(part.view_as(tensor))
