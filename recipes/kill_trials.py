"""Kills a run at seeded moments, starts the same command again, and compares with a quiet run.

    python recipes/kill_trials.py --config CONFIG.toml --trials 100 --out recipes/results/durability

Each trial is a run of its own, on two gloo ranks of this machine. It is killed (SIGKILL, one rank
or all of them) at one of five points, and started again until it ends. It passes when
metrics.jsonl (times apart), the set of checkpoints and every value of the last one are those of
the run that nobody disturbed. The config should save often: interval 2 of 8 steps, say.
"""

import argparse
import functools
import gc
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the ranks are forks

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from let_titan.checkpoint.folders import step_folders, whole_checkpoints
from let_titan.summary import surroundings
from let_titan.train import LetTrainer
from let_titan.train import main as train

RANKS = 2
PATIENCE_S = 10.0  # how long a rank may live on after another one's death
POINTS = ("in a step", "while saving", "while purging", "while saving again", "at s_stop")
TIMES = ("elapsed_s", "tokens_per_s", "memory_gib")


@dataclass
class Trial:
    """What is done to a run; ``call`` is which call of the point's function does not return."""

    seed: int
    point: str
    victim: str  # "rank 0", "rank 1" or "all ranks"
    async_mode: str
    call: int
    delay_s: float


@dataclass
class Outcome:
    """What came of a trial. ``starts`` are the steps the launches began at."""

    trial: Trial
    hit: bool
    starts: list[int]
    differences: list[str]
    seconds: float


def plan_trial(seed: int, quiet_s: float, saves: int) -> Trial:
    """Draws a trial; points take turns, so that each is met as often."""
    draw = random.Random(seed)
    point = POINTS[seed % len(POINTS)]
    victim = draw.choice(["rank 0", "rank 1", "all ranks"])
    if point == "while purging":  # rank 0 alone deletes
        victim = draw.choice(["rank 0", "all ranks"])
    calls = {"while saving": saves, "while purging": saves - 2, "while saving again": saves // 2}
    return Trial(
        seed=seed,
        point=point,
        victim=victim,
        async_mode=draw.choice(["disabled", "async"]),
        call=draw.randint(1, calls.get(point, 1)),
        delay_s=draw.uniform(0.3, 1.0) * quiet_s,
    )


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


def contents(folder: Path) -> dict[str, Any]:
    """Reads what a run left that must not depend on its kills."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    whole = whole_checkpoints(folder / "checkpoint")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "all.pt"
        dcp_to_torch_save(whole[max(whole)], file)
        values = torch.load(file, weights_only=False)  # our own run's, written a moment ago
    return {
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "checkpoints": sorted(whole),
        "torn": [path.name for path in step_folders(folder / "checkpoint").values()]
        == [path.name for path in whole.values()],
        **flatten(values),
    }


def flatten(values: Any, name: str = "") -> dict[str, Any]:
    if isinstance(values, dict):
        return {k: v for key in values for k, v in flatten(values[key], f"{name}/{key}").items()}
    return {name: values}


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Returns the names of what is not bit for bit the same."""
    names = sorted(found.keys() ^ wanted.keys())
    for name in found.keys() & wanted.keys():
        a, b = found[name], wanted[name]
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        names += [] if same else [name]
    return names


def run_trial(trial: Trial, args: list[str], folder: Path, quiet: Path) -> Outcome:
    """Runs one trial in ``folder``; a run that saves again starts from a copy of ``quiet``."""
    begin = time.monotonic()
    run, again = folder / "run", trial.point == "while saving again"
    args = [*args, "--job.dump_folder", str(run), "--checkpoint.async_mode", trial.async_mode]
    if again:
        shutil.copytree(quiet, run)
        steps = sorted(whole_checkpoints(run / "checkpoint"))
        args += ["--checkpoint.load_step", str(steps[len(steps) // 2 - 1])]
    hit = until_it_ends(args, folder / "log", trial)
    found, wanted = contents(run), contents(quiet)
    log = (folder / "log.0.log").read_text()
    starts = [int(step) for step in re.findall(r"Training starts at step (\d+)", log)]
    return Outcome(trial, hit, starts, differences(found, wanted), time.monotonic() - begin)


def run_trials(config: Path, trials: int, seed: int, scratch: Path) -> list[Outcome]:
    """Runs the quiet runs, then the trials, in ``scratch``."""
    gc.freeze()  # else every collection in a fork copies what the imports left
    base = ["--job.config_file", str(config)]
    quiet = {}
    for name, keep in (("keep all", "0"), ("keep 2", "2")):
        folder = scratch / name.replace(" ", "-")
        folder.mkdir(parents=True)
        args = [*base, "--checkpoint.keep_latest_k", keep]
        begin = time.monotonic()
        ended, _ = launch([*args, "--job.dump_folder", str(folder / "run")], folder / "log")
        if not ended:
            raise SystemExit(f"The quiet run failed: see {folder}.")
        quiet[name] = (args, folder / "run", time.monotonic() - begin)
    saves = len(whole_checkpoints(quiet["keep all"][1] / "checkpoint"))
    outcomes = []
    for number in range(seed, seed + trials):
        again = POINTS[number % len(POINTS)] == "while saving again"
        args, undisturbed, seconds = quiet["keep all" if again else "keep 2"]
        trial = plan_trial(number, seconds, saves)
        folder = scratch / f"trial-{number}"
        folder.mkdir()
        outcomes.append(run_trial(trial, args, folder, undisturbed))
        state = outcomes[-1]
        verdict = "differs: " + ", ".join(state.differences[:5]) if state.differences else "equal"
        print(f"{number:3} {trial.point:18} {trial.victim:9} {trial.async_mode:8} {verdict}")
        if not state.differences:
            shutil.rmtree(folder)
    gc.unfreeze()
    return outcomes


def report(outcomes: list[Outcome], on: dict[str, Any]) -> str:
    """Returns the Markdown of a set of trials; ``on`` is what ``surroundings`` said."""
    versions, hardware = on["versions"], on["hardware"]
    lines = [
        f"# {len(outcomes)} kills",
        "",
        f"Two gloo ranks on {hardware['cpu']} (shared), torch {versions['torch']}, torchtitan "
        f"{versions['torchtitan']}, commit {on['git_commit']}; seeds {outcomes[0].trial.seed} to "
        f"{outcomes[-1].trial.seed}. Program: `recipes/kill_trials.py`, on a config that",
        "`tests/test_kills.py` writes.",
        "",
        "| killed | trials | kill took place | ended bit-equal |",
        "|---|---|---|---|",
    ]
    for point in POINTS:
        mine = [outcome for outcome in outcomes if outcome.trial.point == point]
        equal = sum(not outcome.differences for outcome in mine)
        lines.append(f"| {point} | {len(mine)} | {sum(o.hit for o in mine)} | {equal} |")
    starts = Counter(start - 1 for outcome in outcomes for start in outcome.starts[1:])
    steps = ", ".join(f"{step} ({count})" for step, count in sorted(starts.items()))
    lines += ["", f"Steps the runs went on from (how often): {steps}.", ""]
    lines += ["A kill in a step is drawn from the clock, and may come after the run's end.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = run_trials(
            options.config.absolute(), options.trials, options.seed, Path(scratch)
        )
    options.out.mkdir(parents=True, exist_ok=True)
    on = surroundings()
    result = {**on, "trials": [asdict(outcome) for outcome in outcomes]}
    (options.out / "trials.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "trials.md").write_text(report(outcomes, on))
    print(report(outcomes, on))
    sys.exit(any(outcome.differences for outcome in outcomes))


if __name__ == "__main__":
    main()
