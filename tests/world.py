"""Processes of the tests: this one's place in a world of its own, and spawned gloo worlds."""

import gc
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchtitan.train

BACKEND = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
"""Of the tests' own process; spawned ranks, of which a machine has more than GPUs, take gloo."""


def do_not_linger() -> None:
    """Takes out the two seconds that torchtitan's train() sleeps at its end."""
    torchtitan.train.time = SimpleNamespace(perf_counter=time.perf_counter, sleep=lambda _: None)


def set_rank(rank: int, world_size: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def outside_the_world() -> Iterator[None]:
    """Takes this process out of its process group, for what makes a group of its own."""
    dist.destroy_process_group()
    try:
        yield
    finally:
        set_rank(0, 1, free_port())
        dist.init_process_group(BACKEND)


def _worker(
    rank: int, world_size: int, port: int, function: Callable[..., Any], out: str, args: Any
) -> None:
    set_rank(rank, world_size, port)
    torch.set_num_threads(1)
    gc.freeze()
    do_not_linger()
    dist.init_process_group("gloo")
    result = function(*args)
    if rank == 0:
        torch.save(result, out)
    dist.barrier()
    dist.destroy_process_group()


def run_world(world_size: int, function: Callable[..., Any], folder: Path, *args: Any) -> Any:
    """Runs a module-level ``function(*args)`` on gloo ranks; returns what rank 0 returned."""
    out = folder / "result.pt"
    arguments = (world_size, free_port(), function, str(out), args)
    # One server imports torchtitan, which takes seconds; each rank is a fork of it.
    multiprocessing.set_forkserver_preload(["tests.support"])
    mp.start_processes(_worker, arguments, nprocs=world_size, start_method="forkserver")
    return torch.load(out, weights_only=False)


@contextmanager
def elsewhere(function: Callable[..., Any], *args: Any) -> Iterator[int]:
    """While active another process lives that has called ``function(*args)``; gives its number."""
    fork = multiprocessing.get_context("fork")
    done = fork.Event()

    def live() -> None:
        function(*args)
        done.set()
        time.sleep(600)

    process = fork.Process(target=live)
    process.start()
    try:
        assert done.wait(60) and process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()
