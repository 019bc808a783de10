"""A download or conversion by some ranks while the others wait, longer than a collective may."""

import os
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from let_titan.collectives import gathered, patient_group
from let_titan.errors import ConfigError, RunError

Fetch = Callable[[Path], None]


def fetch_once(folder: Path, fetch: Fetch) -> None:
    """Fills ``folder`` where it has no config.json; called by all ranks.

    Rank 0 does so; then, on nodes that do not see its result, one rank each. The others wait in a
    group of their own: in the default one they would time out over a large teacher's download.

    Raises:
        ConfigError, RunError: on all ranks, what was raised on one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        if is_missing(folder):
            fetch(folder)
        return
    if not any(gathered(is_missing(folder))):
        return
    with patient_group() as group:
        for fetches in (dist.get_rank() == 0, os.environ.get("LOCAL_RANK", "0") == "0"):
            failure = attempt(folder, fetch) if fetches and is_missing(folder) else None
            for error in gathered(as_told(failure), group):
                if error is not None:
                    raise failure or error


def is_missing(folder: Path) -> bool:
    return not (folder / "config.json").exists()


def attempt(folder: Path, fetch: Fetch) -> Exception | None:
    """Fetches; returns what went wrong."""
    try:
        fetch(folder)
    except Exception as error:
        return error
    return None


def as_told(failure: Exception | None) -> Exception | None:
    """Returns a failure as an exception that can be pickled for the other ranks."""
    if failure is None or isinstance(failure, ConfigError | RunError):
        return failure
    return RunError(f"The teacher could not be fetched ({type(failure).__name__}: {failure}).")
