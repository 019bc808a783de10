"""What users see in the place of a traceback: mistakes in the input, runs that cannot go on."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from let_titan.stop import exit_on_sigterm


class ConfigError(ValueError):
    """A mistake in the user's input: one sentence that names the value and the cure.

    ``let_titan.train.main`` prints it on rank 0 and exits with 2, without a traceback.

    Args:
        sentence: of the mistake.
        others: mistakes that were found with it, for ``let_titan.preflight`` to tell.

    Attributes:
        told: whether the rank that raised it has printed it.
    """

    told = False

    def __init__(self, sentence: str, others: Sequence["ConfigError"] = ()) -> None:
        super().__init__(sentence)
        self.others = others


class LocalConfigError(ConfigError):
    """A mistake about this machine, perhaps about no other: its first process prints it, too."""


class NotFoundHere(LocalConfigError):
    """Something that the run needs is not on this machine, but may be where the run will be.

    For a run that starts it is a mistake, for ``let_titan.preflight`` a check that it cannot make.
    """


class RunError(RuntimeError):
    """What stopped a run that was sound at its start: what happened, and what to do.

    ``let_titan.train.main`` prints it on rank 0 and exits with 1, without a traceback. Raised on
    all ranks, or on rank 0 alone.

    Attributes:
        told: whether the rank that raised it has printed it.
    """

    told = False


def one_line(error: BaseException) -> str:
    """Returns what an error says as one line, or its type's name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses while ``path`` is written into a RunError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunError(
            f"{path} cannot be written ({why}): make room or mend the file system, then start the "
            "same command again."
        ) from error


@contextmanager
def printing_errors() -> Iterator[None]:
    """Prints what stops the run on the rank that raises it, for errors of a single rank.

    ``let_titan.train.main`` prints those of rank 0 only, and the other ranks merely see their next
    collective fail.
    """
    try:
        yield
    except (ConfigError, RunError) as error:
        if os.environ.get("RANK", "0") != "0":
            print(f"let_titan: {error}", file=sys.stderr, flush=True)
            error.told = True
        raise


def exit_code(program: str, work: Callable[[], None]) -> int:
    """Does a program's work; an error is printed to stderr as one sentence, without a traceback.

    SIGTERM ends it with 143, after what it was writing has been removed.

    Returns:
        0; 2 after a mistake in the input; 1 after what stopped sound work.
    """
    try:
        with exit_on_sigterm():
            work()
    except (ValueError, RunError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0
