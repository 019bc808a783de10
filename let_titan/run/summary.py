"""A run's ``summary.json``: what was run, on what, and how it came out."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch
from torchtitan.tools import utils as titan_utils

from let_titan.device import HAS_ACCELERATOR, cpu_name
from let_titan.disk import replace_text
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
    """Writes a summary, or a config, as JSON; a reader sees the old or the new one, never half."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(summary, indent=2, default=str) + "\n")


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
    """Returns what the run runs on; memory in GiB.

    ``local_world_size`` is None where the launcher did not say how many processes a node has.
    """
    per_node = os.environ.get("LOCAL_WORLD_SIZE", "")
    facts: dict[str, Any] = {
        "device": titan_utils.device_type,
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        "local_world_size": int(per_node) if per_node.isdecimal() else None,
        "cpu": cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    if HAS_ACCELERATOR:
        module = titan_utils.device_module
        facts["device_name"] = module.get_device_name(0)
        facts["device_memory_gib"] = round(module.get_device_properties(0).total_memory / 2**30, 1)
    return facts
