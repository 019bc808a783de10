"""The short runs of a probe: the config's own beginning, once for each block, and once without."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError, RunError
from let_titan.programs import run_to_end
from let_titan.runs import is_number, read_lines
from let_titan.student.flavors import FLAVORS

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Of the student's blocks: candidates for k, beside the config's own."""

LOOKS = 40
"""How often a run is looked at, about."""

END = 0.2
"""Share of a run over which its last losses are averaged."""

BASELINE = "baseline"

Train = Callable[[list[str], Path], None]
"""Trains by let_titan.train's arguments, telling what it says in a log."""


@dataclass(frozen=True)
class Trial:
    """What a run has shown.

    Attributes:
        name: "k3" or BASELINE.
        block: k; 0 of the baseline.
        loss: NLL in nats per token, mean over the last fifth of its steps.
        looks: (step, what ``alignment.Diagnostics`` found of the one pair).
    """

    name: str
    block: int
    loss: float
    looks: list[tuple[int, dict[str, Any]]]


def candidates(config: LetJobConfig, wanted: Sequence[int]) -> list[int]:
    """Returns the blocks to try: ``wanted``, or shares of the student and the config's own k.

    Raises:
        ConfigError: the student has no such block.
    """
    n_layers = FLAVORS[config.model.flavor].n_layers
    blocks = sorted(set(wanted) or {config.let.k, *(max(1, round(n_layers * x)) for x in SHARES)})
    if not 1 <= blocks[0] <= blocks[-1] <= n_layers:
        raise ConfigError(
            f"--blocks {','.join(map(str, blocks))} must lie between 1 and {n_layers}, the blocks "
            f"of {config.model.flavor!r}."
        )
    return blocks


def arguments(config: LetJobConfig, steps: int, block: int, folder: Path) -> list[str]:
    """Returns what makes a trial of the config: keys of the command line, which win over the file.

    The learning rate is that of the whole run's first steps, and lambda stays what it is at first.
    Weights that the run would load are loaded, and nothing is saved.

    Args:
        config: the run's own.
        steps: of the trial.
        block: k, or 0 for the baseline.
        folder: its dump folder.
    """
    total = config.lr_scheduler.total_steps or config.training.steps
    keys = {
        "job.dump_folder": str(folder),
        "training.steps": str(steps),
        "lr_scheduler.total_steps": str(max(total, steps)),
        "metrics.log_freq": "1",
        "teacher.cache": "",  # its key has the lanes, and with them the probe's own ranks
    }
    if block:
        keys |= {
            "let.k": str(block),
            "let.s_stop": str(steps),
            "let.schedule": "constant",
            "let.diagnostics_freq": str(max(1, steps // LOOKS)),
        }
    off = ["let.auto-stop", "validation.enable", "export.enable", "metrics.enable-wandb"]
    off += [] if block else ["let.enable"]
    off += [] if begins_with_weights(config) else ["checkpoint.enable"]
    flags = [f"--{section}.no-{name}" for section, _, name in (key.partition(".") for key in off)]
    if begins_with_weights(config):
        flags.append("--checkpoint.load-only")
        keys["checkpoint.load_step"] = "-1"  # a step of the run's own checkpoints, else
    return [*flags, *(part for key, value in keys.items() for part in (f"--{key}", value))]


def begins_with_weights(config: LetJobConfig) -> bool:
    """Whether the run's first steps are of a checkpoint's weights and not of random ones."""
    checkpoint = config.checkpoint
    given = checkpoint.initial_load_path or checkpoint.initial_load_in_hf
    return checkpoint.enable and bool(given)


def in_processes(count: int) -> Train:
    """Returns what trains by torchrun, in ``count`` processes.

    Raises:
        RunError: from it, where a run fails; the log has its sentence.
    """

    def train(args: list[str], log: Path) -> None:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, "--nproc_per_node", str(count), "-m", "let_titan.train", *args]
        with log.open("w") as out:
            code = run_to_end(command, stdout=out, stderr=subprocess.STDOUT)
        if code:
            raise RunError(f"A run of the probe failed (exit code {code}): {log} says why.")

    return train


def run_trial(train: Train, args: list[str], steps: int, block: int, folder: Path) -> Trial:
    """Trains one run and reads what it left.

    Args:
        train: for example ``in_processes(1)``.
        args: all of let_titan.train's.
        steps: of the run.
        block: k, or 0 for the baseline.
        folder: its dump folder; the log is beside it.

    Raises:
        RunError: it failed, or has no finite loss at its end.
    """
    train(args, folder.with_suffix(".log"))
    lines = read_lines(folder / "metrics.jsonl")
    looks = [(line["step"], line["diagnostics"]) for line in lines if "diagnostics" in line]
    losses = [line["loss"] for line in lines if "loss" in line][-max(1, round(END * steps)) :]
    finite = [loss for loss in losses if is_number(loss)]  # a step may have been left out
    if not finite:
        raise RunError(
            f"No loss of the last {len(losses)} in {folder} is finite: lower optimizer.lr or "
            "let.lambda_0, or look at the data."
        )
    return Trial(folder.name, block, fmean(finite), looks)
