"""Starts one training run, as a user would."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

TO_SAVE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}
"""Seconds that a torchrun which is told to end leaves its worker, where nothing else is said."""


def train(
    root: Path, config: str, keys: Mapping[str, str], processes: int = 1, end: float = math.inf
) -> None:
    """Runs let_titan.train on ``config`` with ``keys`` on the command line, in ``root``.

    Args:
        keys: {"section.key": value}; of a bool, "true" or "false".
        end: of ``time.monotonic``: nothing is begun after it, and a run that it finds at work is
            told to save its step and end.

    Raises:
        subprocess.CalledProcessError: the run failed; its own sentence is on stderr.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", str(processes), "-m", "let_titan.train"]
    command += ["--job.config_file", config, *flags(keys)]
    seconds = end - time.monotonic()
    if seconds <= 0:
        return
    with subprocess.Popen(command, cwd=root, env=TO_SAVE | os.environ) as process:
        try:
            code = process.wait(None if math.isinf(seconds) else seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # which torchrun passes on
            return
    if code != 0:
        raise subprocess.CalledProcessError(code, command)


def flags(keys: Mapping[str, str]) -> list[str]:
    """Writes ``keys`` as a command line has them."""
    found: list[str] = []
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        if value in ("true", "false"):
            found.append(f"--{key}" if value == "true" else f"--{section}.no-{name}")
        else:
            found += [f"--{key}", value]
    return found
