"""How the processes of a run find each other: by torchrun's variables, or one without any."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistNetworkError
from torchtitan.tools.logging import logger

from let_titan.errors import ConfigError

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
MEETING = ("MASTER_ADDR", "MASTER_PORT")
CURE = "start it with torchrun --nproc_per_node N -m let_titan.train, which sets them all"


def complete_environment() -> None:
    """Makes a plain ``python -m let_titan.train`` a run of one process.

    Raises:
        ConfigError: some of torchrun's variables are set, and others are not.
    """
    missing = [name for name in PLACE if name not in os.environ]
    if len(missing) == len(PLACE):
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        logger.info("One process: torchrun --nproc_per_node N -m let_titan.train makes it N.")
    elif missing:
        raise ConfigError(f"{', '.join(missing)} must be set where others of {PLACE} are: {CURE}.")
    wrong = [name for name in PLACE if not os.environ[name].isdecimal()]
    if wrong:
        raise ConfigError(f"{wrong[0]} = {os.environ[wrong[0]]!r} must be a number: {CURE}.")
    if os.environ["WORLD_SIZE"] == "1":
        os.environ.setdefault("MASTER_ADDR", "localhost")
        os.environ.setdefault("MASTER_PORT", "0")  # any free one
    missing = [name for name in MEETING if name not in os.environ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be set for several processes: {CURE}.")


@contextmanager
def rendezvous_errors() -> Iterator[None]:
    """Says where the processes could not meet, instead of a traceback of torch's.

    Raises:
        ConfigError: the port is in use, or nobody answers there.
    """
    try:
        yield
    except DistNetworkError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = "it is in use" if "EADDRINUSE" in str(error) else str(error).splitlines()[0]
        raise ConfigError(
            f"The processes cannot meet at {address} ({reason}): give torchrun another "
            "--master_port, or --standalone on a single machine, which finds a free one."
        ) from error
