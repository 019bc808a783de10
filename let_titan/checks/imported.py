"""experimental.custom_import: a module of the user's, which adds to what the config may name."""

import importlib

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig
from let_titan.errors import LocalConfigError, one_line


def import_mistakes(config: LetJobConfig) -> Mistakes:
    """Imports it before torchtitan's Trainer does: the checks that follow ask for what it adds."""
    module = config.experimental.custom_import
    if module:
        yield from raised_by(import_users, module)


def import_users(module: str, key: str = "experimental.custom_import") -> None:
    """Imports a module of the user's, which ``key`` names.

    Raises:
        LocalConfigError: it is not found, or raises.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # its code may raise anything
        raise LocalConfigError(
            f"{key} = {module!r} cannot be imported ({one_line(error)}): put it on PYTHONPATH, "
            f"mend it, or leave {key} out."
        ) from error
