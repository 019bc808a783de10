"""Failures of checkpoints, put into a few words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.checkpoint.api import CheckpointException

from let_titan.errors import ConfigError


@contextmanager
def in_order() -> Iterator[None]:
    """While active, what the file system refuses is a sentence about the checkpoints."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"The checkpoints cannot be put in order ({error}): mend the folder."
        ) from error


def reason(error: BaseException) -> str:
    """Returns the first line of what went wrong: of DCP's exception, the first rank's."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = min(error.failures.items())
        return f"rank {rank}: {reason(cause)}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no space left on the device"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
