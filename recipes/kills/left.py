"""What a run left, as far as it must not depend on its kills."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from let_titan.checkpoint.folders import step_folders, whole_checkpoints

TIMES = ("elapsed_s", "tokens_per_s", "memory_gib")


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
