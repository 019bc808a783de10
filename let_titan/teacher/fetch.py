"""A download or conversion by some ranks while the others wait, longer than a collective may."""

import os
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from let_titan.collectives import do_where, gathered, patient_group

Fetch = Callable[[Path], None]


def fetch_once(folder: Path, fetch: Fetch) -> None:
    """Fills ``folder`` where it has no config.json; called by all ranks.

    Rank 0 does so; then, on nodes that do not see its result, one rank each. The others wait in a
    group of their own: in the default one they would time out over a large teacher's download.

    Raises:
        ConfigError, RunError: from ``fetch`` and ``do_where``.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        if is_missing(folder):
            fetch(folder)
        return
    if not any(gathered(is_missing(folder))):
        return
    with patient_group() as group:
        for fetches in (dist.get_rank() == 0, os.environ.get("LOCAL_RANK", "0") == "0"):
            do_where(fetches and is_missing(folder), lambda: fetch(folder), group)


def is_missing(folder: Path) -> bool:
    return not (folder / "config.json").exists()
