"""Whether torch.compile finds here what it hands its code to: a compiler and Python's headers.

Without them a run ends in torch's traceback at its first step, once everything is loaded. Slim
images and many clusters' nodes have neither.
"""

import os
import shutil
import sysconfig
from pathlib import Path

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles, compiles_teacher
from let_titan.device import HAS_ACCELERATOR
from let_titan.errors import LocalConfigError

SEARCHED = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH")
"""Variables that show compilers more folders of headers."""


def compiler_mistakes(config: LetJobConfig) -> Mistakes:
    """Looks where Triton looks (for a GPU) or Inductor (for a CPU), once it writes a kernel."""
    if config.data.document_attention:  # flex attention is compiled whatever [compile] says
        key = "data.document_attention"
    elif compiles_anything(config) and config.compile.backend == "inductor":
        key = "compile.enable"
    else:
        return
    language, variable, programs = (
        ("C", "CC", ["gcc", "clang"]) if HAS_ACCELERATOR else ("C++", "CXX", ["g++"])
    )
    named = os.environ.get(variable)
    if not any(map(shutil.which, programs if named is None else [named])):
        found = "this machine lacks" if named is None else f"{variable} = {named!r} does not name"
        yield LocalConfigError(
            f"{key} = true needs a {language} compiler, which {found}: install gcc and g++, name "
            f"a program in {variable}, without arguments, or set {key} = false."
        )
    folders = [sysconfig.get_path("include"), sysconfig.get_path("include", "posix_prefix")]
    there = any(Path(folder, "Python.h").exists() for folder in folders)
    if not there and not any(map(os.environ.get, SEARCHED)):
        yield LocalConfigError(
            f"{key} = true needs Python's headers, and {folders[0]} has no Python.h: install them "
            f"(python3-dev on Debian), or set {key} = false."
        )


def compiles_anything(config: LetJobConfig) -> bool:
    return compiles(config, "model") or compiles(config, "loss") or compiles_teacher(config)
