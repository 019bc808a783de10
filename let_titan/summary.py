"""A run's ``summary.json``: what was run, on what, and how it came out."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torchtitan.tools import utils as titan_utils

from let_titan.device import HAS_ACCELERATOR, cpu_name
from let_titan.errors import writing

PACKAGES = (
    "let-titan",
    "torch",
    "torchtitan",
    "torchao",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes ``summary`` as JSON; a reader sees the old file or the new one, never half of it."""
    scratch = path.with_suffix(".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(summary, indent=2, default=str) + "\n")
        scratch.replace(path)


def surroundings() -> dict[str, Any]:
    """Returns versions, git commit and hardware: all that a figure needs beside its config."""
    return {"versions": versions(), "git_commit": git_commit(), "hardware": hardware()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Returns the commit of the checkout that let_titan is imported from, "-dirty" if changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def hardware() -> dict[str, Any]:
    """Returns what the run runs on; memory in GiB."""
    facts: dict[str, Any] = {
        "device": titan_utils.device_type,
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        "cpu": cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    if HAS_ACCELERATOR:
        module = titan_utils.device_module
        facts["device_name"] = module.get_device_name(0)
        facts["device_memory_gib"] = round(module.get_device_properties(0).total_memory / 2**30, 1)
    return facts


def outcome(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Draws from metrics.jsonl's lines how a run came out.

    Returns:
        final and best validation loss, the steps that were left out because something was not
        finite, wall time in seconds, and per phase the mean tokens/s
        (step 1, which compiles and allocates, is left out) and the highest memory in GiB.
    """
    losses = [line["val_loss"] for line in lines if line.get("val_loss") is not None]
    train = [line for line in lines if "loss" in line]
    return {
        "final_val_loss": losses[-1] if losses else None,
        "best_val_loss": min(losses) if losses else None,
        "nonfinite_steps": [line["step"] for line in lines if "nonfinite" in line],
        "wall_time_s": train[-1]["elapsed_s"] if train else None,
        "throughput": {
            "let_phase": phase_cost(line for line in train if line["teacher_active"]),
            "after": phase_cost(line for line in train if not line["teacher_active"]),
        },
    }


def phase_cost(lines: Any) -> dict[str, float] | None:
    """Returns {tokens_per_s, peak_memory_gib} over train lines, or None without any."""
    counted = [line for line in lines if line["step"] > 1]
    if not counted:
        return None
    # Each window counts alike: rates over (nearly) equal tokens have a harmonic mean.
    seconds_per_token = sum(1 / line["tokens_per_s"] for line in counted) / len(counted)
    return {
        "tokens_per_s": 1 / seconds_per_token,
        "peak_memory_gib": max(line["memory_gib"] for line in counted),
    }
