"""Whether this node has a GPU for each of its processes, and whether torch can use it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torchtitan.tools.utils import device_module

from let_titan.checks.mistakes import Mistakes
from let_titan.device import HAS_ACCELERATOR
from let_titan.errors import LocalConfigError

DEVICES = Path("/dev")
NAMES_GPUS = re.compile(r"\d|GPU-|MIG-")
"""What CUDA_VISIBLE_DEVICES begins with; anything else hides all GPUs."""


def gpu_mistakes() -> Mistakes:
    yield from too_few_gpus() if HAS_ACCELERATOR else unusable_gpus()


def too_few_gpus() -> Iterator[LocalConfigError]:
    rank, per_node = (os.environ.get(name, "") for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    processes = max(int(rank or 0) + 1, int(per_node) if per_node.isdecimal() else 1)
    gpus = device_module.device_count()
    if processes > gpus:
        yield LocalConfigError(
            f"{processes} processes were started on this node (LOCAL_RANK = {rank or 0!r}, "
            f"LOCAL_WORLD_SIZE = {per_node!r}), where torch finds GPUs for {gpus}: give torchrun "
            f"--nproc_per_node {gpus}, or show it more (CUDA_VISIBLE_DEVICES)."
        )


def unusable_gpus() -> Iterator[LocalConfigError]:
    """Finds NVIDIA's GPUs that torch cannot use; torchtitan would take the CPU without a word.

    They occur where torch was installed on a node without a GPU, and where the driver is older than
    the CUDA that torch was built for. In a container, or a job, that was given no GPU there is no
    device file, or none that may be opened.
    """
    if not NAMES_GPUS.match(os.environ.get("CUDA_VISIBLE_DEVICES", "0")):
        return
    files = [path for path in DEVICES.glob("nvidia*") if path.name[len("nvidia") :].isdecimal()]
    gpus = sum(os.access(path, os.R_OK | os.W_OK) for path in files)
    if gpus:
        yield LocalConfigError(
            f"This node's NVIDIA GPUs ({gpus}) cannot be used by torch {torch.__version__} "
            f"({why_no_gpu()}), and the run would take the CPU: install a torch that fits the "
            "driver (TORCH_INDEX=https://download.pytorch.org/whl/cu126 bash scripts/setup.sh, see "
            "docs/run-the-paper.md), or set CUDA_VISIBLE_DEVICES= to train on the CPU."
        )


def why_no_gpu() -> str:
    """Returns the first sentence of what torch says of it."""
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return str(error).split(". ")[0]
    return f"it finds {torch.cuda.device_count()}"
