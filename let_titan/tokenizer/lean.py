"""torchtitan's own ``HuggingFaceTokenizer`` without torchtitan and torch, which it does not need.

``import torchtitan`` brings torch, torchao and triton, 0.4 GB of memory, though its tokenizer needs
only a logger and the tokenizers package. Programs without a model therefore run the tokenizer's
module from its file, with empty stand-ins for the packages above it: the same code, so the same
ids. Private to torchtitan 0.2.2: where that module lies, and the two modules it imports.
"""

import functools
import logging
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from let_titan.errors import ConfigError, NotFoundHere

HF_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")


def hugging_face_tokenizer(folder: str) -> Any:
    """Reads a Hugging Face tokenizer as torchtitan does.

    Raises:
        NotFoundHere: the folder holds none.
        ConfigError: its files are torn, or do not belong together.
    """
    if not any((Path(folder) / name).exists() for name in HF_FILES):
        raise NotFoundHere(
            f"{folder!r} holds no tokenizer ({', '.join(HF_FILES)}): give the folder of a Hugging "
            "Face tokenizer, or a *.tiktoken file."
        )
    try:
        return tokenizer_module().HuggingFaceTokenizer(folder)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigError(
            f"{folder!r} holds a tokenizer that cannot be read ({' '.join(str(error).split())}): "
            "copy its files anew."
        ) from error


@functools.cache
def tokenizer_module() -> ModuleType:
    """Returns ``torchtitan.components.tokenizer``, or a copy of it that imported no torchtitan."""
    if "torchtitan" in sys.modules:
        import torchtitan.components.tokenizer

        return torchtitan.components.tokenizer
    package = find_spec("torchtitan")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "components" / "tokenizer.py"
    spec = spec_from_file_location("let_titan.titan_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module, stand_ins = module_from_spec(spec), empty_packages()
    sys.modules.update(stand_ins)
    try:
        spec.loader.exec_module(module)
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return module


def empty_packages() -> dict[str, ModuleType]:
    """Returns the modules that the tokenizer's imports, with the two names that it takes."""
    names = ("torchtitan", "torchtitan.config", "torchtitan.tools", "torchtitan.tools.logging")
    modules = {name: ModuleType(name) for name in names}
    modules["torchtitan.config"].JobConfig = object  # type: ignore[attr-defined]
    modules["torchtitan.tools.logging"].logger = logging.getLogger()  # type: ignore[attr-defined]
    return modules
