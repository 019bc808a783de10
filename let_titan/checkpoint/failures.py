"""Failures of checkpoints: raised on every rank, and put into a few words."""

import errno
from collections.abc import Callable

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from let_titan.collectives import gathered
from let_titan.errors import ConfigError


def on_rank_0(action: Callable[[], object]) -> None:
    """Runs ``action`` on rank 0 while the others wait; an error there ends every rank."""
    error: Exception | None = None
    if dist.get_rank() == 0:
        try:
            action()
        except Exception as raised:
            error = raised
    told = gathered(None if error is None else str(error))[0]
    if error is not None and not isinstance(error, OSError):
        raise error
    if told is not None:
        raise ConfigError(f"The checkpoints cannot be put in order ({told}): mend the folder.")


def reason(error: BaseException) -> str:
    """Returns the first line of what went wrong: of DCP's exception, the first rank's."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = min(error.failures.items())
        return f"rank {rank}: {reason(cause)}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the device"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
