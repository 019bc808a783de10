"""The tests. But for those marked gpu they are of a CPU, on a machine with GPUs, too: their ranks
are more than it has of those, and meet over gloo."""

import os
import sys
from itertools import pairwise

import let_titan as let_titan  # before torchtitan, which looks for a device when imported


def asks_for_gpus(arguments: list[str]) -> bool:
    """Whether pytest's arguments choose tests marked gpu."""
    chosen = [value for flag, value in pairwise(arguments) if flag == "-m"]
    return any("gpu" in value and "not gpu" not in value for value in chosen)


# Before torch looks for them. A worker of pytest-xdist has what the process that started it has.
if not asks_for_gpus(sys.argv) and "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
