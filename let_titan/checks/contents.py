"""What a checkpoint holds, compared with what will be loaded from it.

Read from its .metadata, as DCP itself does on loading.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from let_titan.checkpoint.checksums import read_metadata
from let_titan.checkpoint.folders import METADATA
from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError
from let_titan.student.flavors import FLAVORS
from let_titan.student.model import LetTransformer
from let_titan.teacher.keys import PLAIN, quantized, read_headers

STATES = ("optimizer", "lr_scheduler", "dataloader", "train_state")
"""What a checkpoint holds beside the model, if it holds all."""


def content_mistakes(config: LetJobConfig, folder: Path, model_only: bool) -> Mistakes:
    """Compares what a checkpoint holds with what will be loaded from it."""
    if is_for_hf(folder):
        yield ConfigError(
            f"{str(folder)!r} was saved for Hugging Face (checkpoint.last_save_in_hf), the model "
            "alone, and cannot be gone on from: choose an older step by checkpoint.load_step, or "
            "start a new run with checkpoint.initial_load_in_hf = true and that folder as "
            "checkpoint.initial_load_path."
        )
        return
    try:
        stored = read_metadata(folder).state_dict_metadata
    except ValueError:
        yield ConfigError(
            f"{str(folder / METADATA)!r} is damaged: restore it, or move {folder.name} away to "
            "go on from an older checkpoint."
        )
        return
    wanted = () if model_only else set(STATES) - set(config.checkpoint.exclude_from_loading)
    lacking = [state for state in STATES if state in wanted and not holds(stored, state)]
    if lacking:
        yield ConfigError(
            f"{str(folder)!r} holds the model alone, without {', '.join(lacking)}, and cannot be "
            "gone on from: choose an older step by checkpoint.load_step, or start a new run with "
            "checkpoint.initial_load_path (checkpoint.last_save_model_only = false avoids this)."
        )
    yield from raised_by(check_sizes, config, folder, stored)


def hf_mistakes(folder: Path, key: str) -> Mistakes:
    """Whether weights for ``checkpoint.initial_load_in_hf`` can be read as they are stored.

    DCP would turn quantized ones into the student's dtype, and their scales, of which it knows
    nothing, would be left out.

    Args:
        folder: with *.safetensors, whose headers are read.
        key: that names it.
    """
    what = f"{key} = {str(folder)!r}"
    try:
        stored = read_headers(folder, what)
    except ConfigError as error:
        yield error
        return
    except SafetensorError as error:
        yield ConfigError(f"{what} holds weights that are damaged ({error}): copy them again.")
        return
    for name, tensor in stored.items():
        dtype = tensor.properties.dtype if isinstance(tensor, TensorStorageMetadata) else None
        # GPTQ and AWQ keep a "qweight" of integers, others a "weight_packed".
        if "weight" in name.rpartition(".")[2] and dtype not in PLAIN:
            yield quantized(f"{name} in {what}", str(dtype))
            return


def is_for_hf(folder: Path) -> bool:
    """Whether a checkpoint that is whole holds safetensors in the place of DCP's files."""
    return not (folder / METADATA).exists()


def goes_on(folder: Path) -> bool:
    """Whether a checkpoint holds more than the model.

    Raises:
        ValueError: its .metadata is damaged.
    """
    return not is_for_hf(folder) and holds(read_metadata(folder).state_dict_metadata, STATES[-1])


def holds(stored: dict[str, Any], state: str) -> bool:
    return any(name == state or name.startswith(f"{state}.") for name in stored)


def check_sizes(config: LetJobConfig, folder: Path, stored: dict[str, Any]) -> None:
    """Compares every weight's shape.

    Raises:
        ConfigError: names the first that differs.
    """
    for name, size in student_sizes(config).items():
        found = getattr(stored.get(name), "size", None)
        if found != size:
            there = "is missing" if found is None else f"has shape {list(found)}"
            raise ConfigError(
                f"{str(folder)!r} is a checkpoint of another model: {name} {there} there, and "
                f"{list(size)} in a {config.model.flavor!r} with this tokenizer. Choose another "
                "job.dump_folder, or the model.flavor, tokenizer and "
                "model.pad_vocab_to_multiple_of of that run."
            )


def student_sizes(config: LetJobConfig) -> dict[str, torch.Size]:
    """Returns the shape of every weight of the student, built without storage."""
    arguments = FLAVORS[config.model.flavor]
    arguments.update_from_config(config)
    with torch.device("meta"):
        return {
            name: weight.shape for name, weight in LetTransformer(arguments).state_dict().items()
        }
