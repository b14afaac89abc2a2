"""Processes that know of each other, as torchrun starts them, to test what they do together."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket
import time
from collections.abc import Callable
from typing import Any

LONGEST = 100.0  # seconds that they may take


def together(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(*arguments)` in `world` processes that know of each other, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_child, args=(rank, world, port, work, arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    ends = time.monotonic() + LONGEST
    while (running := [process for process in processes if process.is_alive()]) and time.monotonic() < ends:
        multiprocessing.connection.wait([process.sentinel for process in running], timeout=ends - time.monotonic())
        if any(process.exitcode for process in processes):
            break  # the others would wait for it
    for process in processes:
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0] * world


def _child(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch
    import torch.distributed as dist

    from bottega.train.parallel.enter import meet
    from bottega.train.parallel_config import ParallelSettings

    torch.set_num_threads(1)
    meet(ParallelSettings(timeout=1), torch.device("cpu"))
    work(*arguments)
    dist.destroy_process_group()
    os._exit(0)  # what torch does at the end of an interpreter takes as long as the tests
