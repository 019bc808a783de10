"""A command on gloo ranks, each a fork of this process, and how it is killed."""

import functools
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from kills.plan import Trial
from let_titan.train import LetTrainer
from let_titan.train import main as train

RANKS = 2
PATIENCE_S = 10.0  # how long a rank may live on after another one's death


def die(everyone: bool) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL) if everyone else os.kill(os.getpid(), signal.SIGKILL)


def arm(trial: Trial, rank: int) -> None:
    """In a rank: makes the point's function kill at its call number ``trial.call``."""
    everyone = trial.victim == "all ranks"
    if rank != (0 if everyone else int(trial.victim[-1])):
        return
    calls = iter(range(1, 1_000_000))

    def deadly(function: Callable[..., Any], halfway: Callable[..., None] | None = None) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == trial.call:
                if halfway is not None:
                    halfway(*args)
                die(everyone)
            return function(*args, **kwargs)

        return call

    targets: dict[str, tuple[Any, str, Any]] = {
        "while saving": (os, "fsync", None),
        "while saving again": (os, "fsync", None),
        "while purging": (shutil, "rmtree", delete_half),
        "at s_stop": (LetTrainer, "_release_teacher", None),
    }
    if trial.point in targets:
        owner, name, halfway = targets[trial.point]
        mock.patch.object(owner, name, deadly(getattr(owner, name), halfway)).start()


def delete_half(folder: str) -> None:
    files = sorted(Path(folder).iterdir())
    for file in files[: len(files) // 2]:
        file.unlink()


def launch(args: list[str], log: Path, trial: Trial | None = None) -> tuple[bool, bool]:
    """Runs the command once; returns (ended well, was killed as planned)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    pids: list[int] = []
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, pids[0] if pids else 0)
            be_rank(rank, port, args, log, trial)
        os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    timed = trial is not None and trial.point == "in a step"
    codes: dict[int, int] = {}
    hit = False
    first_death = None
    while len(codes) < RANKS:
        if timed and not hit and time.monotonic() - begin > trial.delay_s:  # type: ignore[union-attr]
            hit = kill(pids, codes, trial.victim)  # type: ignore[union-attr]
        for rank, pid in enumerate(pids):
            if rank not in codes and (status := os.waitpid(pid, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(status[1])
                first_death = first_death or time.monotonic()
        if first_death and time.monotonic() - first_death > PATIENCE_S:
            kill(pids, codes, "all ranks")
        time.sleep(0.005)
    killed = any(code == -signal.SIGKILL for code in codes.values())
    return all(code == 0 for code in codes.values()), hit or killed


def kill(pids: list[int], codes: dict[int, int], victim: str) -> bool:
    """Kills the victims that still run; returns whether there was one."""
    chosen = range(RANKS) if victim == "all ranks" else [int(victim[-1])]
    alive = [pids[rank] for rank in chosen if rank not in codes]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return bool(alive)


def be_rank(rank: int, port: int, args: list[str], log: Path, trial: Trial | None) -> None:
    """In a fork: trains as one rank and leaves with its exit code."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    out = os.open(log.with_suffix(f".{rank}.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1), os.dup2(out, 2)
    torch.set_num_threads(1)
    import torchtitan.train  # let_titan must be first, see let_titan.before_torchtitan

    # torchtitan sleeps two seconds at the end of a run
    torchtitan.train.time = SimpleNamespace(perf_counter=time.perf_counter, sleep=lambda _: None)
    if trial is not None:
        arm(trial, rank)
    code = 1
    try:
        train(args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def until_it_ends(args: list[str], log: Path, trial: Trial) -> bool:
    """Launches with the trial's kill, then quietly until the run ends; returns whether it hit."""
    ended, hit = launch(args, log, trial)
    for _ in range(3):
        if ended:
            return hit
        ended, _ = launch(args, log)
    raise SystemExit(f"The run of trial {trial} does not end: see {log.parent}.")
