"""Whether torch.compile finds here what it hands its code to: a compiler and Python's headers.

Without them a run ends in torch's traceback at its first step, once everything is loaded. Slim
images and many clusters' nodes have neither.
"""

import os
import shutil
import sysconfig
from pathlib import Path

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.device import HAS_ACCELERATOR
from let_titan.errors import LocalConfigError

SEARCHED = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")
"""Variables that show compilers more folders of headers."""


def compiler_mistakes(config: LetJobConfig) -> Mistakes:
    """Looks where Triton looks (for a GPU) or Inductor (for a CPU), once it writes a kernel."""
    if config.data.document_attention:  # flex attention is compiled whatever [compile] says
        key = "data.document_attention"
    elif config.compile.enable and config.compile.backend == "inductor":
        key = "compile.enable"
    else:
        return
    if compiler() is None:
        language, variable = ("C", "CC") if HAS_ACCELERATOR else ("C++", "CXX")
        yield LocalConfigError(
            f"{key} = true needs a {language} compiler, which this machine lacks ({variable} = "
            f"{os.environ.get(variable, '')!r}): install gcc and g++, name another in {variable}, "
            f"or set {key} = false."
        )
    folder = sysconfig.get_path("include")
    if not Path(folder, "Python.h").exists() and not any(map(os.environ.get, SEARCHED)):
        yield LocalConfigError(
            f"{key} = true needs Python's headers, and {folder} has no Python.h: install them "
            f"(python3-dev on Debian), or set {key} = false."
        )


def compiler() -> str | None:
    """Returns the compiler that will be called; None where there is none."""
    if not HAS_ACCELERATOR:
        return shutil.which(os.environ.get("CXX", "g++"))
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
