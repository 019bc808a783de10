"""The two exceptions that reach a user: a mistake in the input, and a run that cannot go on."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from let_titan.stop import ending_orderly


class ConfigError(ValueError):
    """A mistake in the user's input: one sentence that names the value and the cure.

    ``let_titan.train.main`` prints it on rank 0 and exits with 2, without a traceback; one of a
    single machine (``WrongHere``) on that machine's first process, too.

    Args:
        sentence: of the mistake.
        others: mistakes that were found with it, for ``let_titan.preflight`` to tell.

    Attributes:
        told: whether the rank that met it has told it.
    """

    told = False

    def __init__(self, sentence: str, others: Sequence["ConfigError"] = ()) -> None:
        super().__init__(sentence)
        self.others = others


class WrongHere(ConfigError):
    """What is wrong with this machine, and may be with no other: its first process tells it."""


class NotFoundHere(WrongHere):
    """Something that the run needs is not on this machine; where the run will be it may be.

    A mistake to a run that starts, a check that could not be made to ``let_titan.preflight``.
    """


class RunError(RuntimeError):
    """What stopped a run that was sound at its start: what happened, and what to do.

    ``let_titan.train.main`` prints it on rank 0 and exits with 1, without a traceback. Raised on
    all ranks, or on rank 0 alone.

    Attributes:
        told: whether the rank that met it has told it.
    """

    told = False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses while ``path`` is written into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): make room or mend the file "
            "system, then start the same command again."
        ) from error


@contextmanager
def telling() -> Iterator[None]:
    """Tells on the rank that meets it what stops a run: of one rank's, main tells rank 0's alone.

    The others learn by their next collective, which fails, that this rank is gone.
    """
    try:
        yield
    except (ConfigError, RunError) as error:
        if os.environ.get("RANK", "0") != "0":
            print(f"let_titan: {error}", file=sys.stderr, flush=True)
            error.told = True
        raise


def exit_code(program: str, work: Callable[[], None]) -> int:
    """Does a program's work; what stops it is told on stderr in one sentence, without a traceback.

    SIGTERM ends it with 143, and what it was writing is removed.

    Returns:
        0; 2 after a mistake in the input; 1 after what stopped sound work.
    """
    try:
        with ending_orderly():
            work()
    except (ValueError, RunError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0
