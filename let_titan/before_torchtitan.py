"""Answers for the CPU when torchtitan is imported, without importing torch before that.

``torchtitan.tools.utils`` looks for a device while it is imported, and let_titan answers where
there is only a CPU. A finder of ours loads that one module, whoever imports it and whenever, so
that importing let_titan stays cheap: ``let_titan.watch`` and the like never import torch.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

ASKING = "torchtitan.tools.utils"


class AnsweredLoader(SourceFileLoader):
    """Runs the module that asks for a device where it finds one."""

    def exec_module(self, module: ModuleType) -> None:
        from let_titan.device import found_device

        with found_device():
            super().exec_module(module)


class AnsweredFinder(MetaPathFinder):
    """Finds ``ASKING`` where it lies, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != ASKING:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = AnsweredLoader(fullname, spec.origin)
        return spec


def stand_ready() -> None:
    """Takes the place at the head of Python's finders.

    Raises:
        ImportError: torchtitan looked for a device already, and there is none.
    """
    if ASKING in sys.modules:
        from let_titan.device import refuse_late_import

        refuse_late_import()
    sys.meta_path.insert(0, AnsweredFinder())
