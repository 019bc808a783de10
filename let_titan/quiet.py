"""Loggers of libraries that speak while they are imported, of nothing that a user could act on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

ENUMS = "torch.utils._pytree"
"""torch 2.13 warns of torchao's enums."""

EXTENSIONS = "torchao"
"""It warns of its own GPU code where there is no GPU."""


@contextmanager
def silent(*names: str) -> Iterator[None]:
    """While active, the loggers of these names say nothing."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.disabled = was
