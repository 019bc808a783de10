"""The two exceptions that reach a user: a mistake in the input, and a run that cannot go on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class ConfigError(ValueError):
    """A mistake in the user's input: one sentence that names the value and the cure.

    ``let_titan.train.main`` prints it on rank 0 and exits with 2, without a traceback.

    Args:
        sentence: of the mistake.
        others: mistakes that were found with it, for ``let_titan.preflight`` to tell.
    """

    def __init__(self, sentence: str, others: Sequence["ConfigError"] = ()) -> None:
        super().__init__(sentence)
        self.others = others


class NotFoundHere(ConfigError):
    """Something that the run needs is not on this machine; where the run will be it may be.

    A mistake to a run that starts, a check that could not be made to ``let_titan.preflight``.
    """


class RunError(RuntimeError):
    """What stopped a run that was sound at its start: what happened, and what to do.

    ``let_titan.train.main`` prints it on rank 0 and exits with 1, without a traceback. Raised on
    all ranks, or on rank 0 alone.
    """


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
