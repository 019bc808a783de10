"""Starts one training run, as a user would."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def train(root: Path, config: str, keys: Mapping[str, str], processes: int = 1) -> None:
    """Runs let_titan.train on ``config`` with ``keys`` on the command line, in ``root``.

    Args:
        keys: {"section.key": value}; of a bool, "true" or "false".

    Raises:
        subprocess.CalledProcessError: the run failed; its own sentence is on stderr.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc_per_node", str(processes), "-m", "let_titan.train"]
    subprocess.run([*command, "--job.config_file", config, *flags(keys)], cwd=root, check=True)


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
