"""experimental.custom_import: a module that adds to torchtitan's converters or data sets."""

import importlib

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import LocalConfigError, one_line


def import_mistakes(config: LetJobConfig) -> Mistakes:
    """Imports it before torchtitan's Trainer does: the checks that follow ask for what it adds."""
    module = config.experimental.custom_import
    if not module:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # its code may raise anything
        yield LocalConfigError(
            f"experimental.custom_import = {module!r} cannot be imported ({one_line(error)}): put "
            "it on PYTHONPATH, mend it, or leave the key out."
        )
