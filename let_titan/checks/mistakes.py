"""What a check gives: its mistakes, one after the other, so that all of them can be told."""

from collections.abc import Callable, Iterator

from let_titan.errors import ConfigError

Mistakes = Iterator[ConfigError]


def raised_by(check: Callable[..., object], *args: object) -> Mistakes:
    """Yields the mistake that ``check(*args)`` raises, if it does."""
    try:
        check(*args)
    except ConfigError as error:
        yield error


def readable(mistakes: Mistakes) -> Mistakes:
    """Yields ``mistakes``, the last one being what ended the look at them: a torn file, or a path
    that could not even be looked at."""
    try:
        yield from mistakes
    except ConfigError as error:
        yield error
    except OSError as error:
        yield ConfigError(
            f"{error.filename!r} cannot be read ({error.strerror}): give another path, or mend "
            "its permissions."
        )
