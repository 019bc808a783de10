"""What a check yields: mistakes one by one, of which a caller takes the first, or all."""

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
    """Yields ``mistakes``. If the check itself fails, on a torn file or an unreadable path, that is
    the last one."""
    try:
        yield from mistakes
    except ConfigError as error:
        yield error
    except OSError as error:
        yield ConfigError(
            f"{error.filename!r} cannot be read ({error.strerror}): give another path, or mend "
            "its permissions."
        )
