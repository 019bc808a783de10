"""Where a checkpoint keeps each tensor of a teacher, by the headers of its safetensors."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader

from let_titan.errors import ConfigError

PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""What weights are stored in that need no scale beside them."""


def stored_keys(model: nn.Module, folder: Path) -> dict[str, str]:
    """Returns the key of each of a base model's parameters and stored buffers; none is read.

    A buffer that the folder has not, or not of its shape, is one that the model has computed.

    Args:
        model: with or without weights, sharded or whole.
        folder: of safetensors, saved of a base model or of one with a head.

    Raises:
        ConfigError: a weight is missing in the folder, has another shape, is quantized, or is
            there twice.
    """
    stored = read_headers(folder, f"The teacher's folder {str(folder)!r}")
    keys = {}
    for name, parameter in model.named_parameters():
        key = key_of(name, model, stored)
        if key not in stored and made_on_loading(model, name):
            raise made_of_others(key, folder)
        check_stored(key, stored.get(key), parameter.shape, folder)
        keys[name] = key
    for name, buffer in persistent_buffers(model).items():
        key = key_of(name, model, stored)
        if getattr(stored.get(key), "size", None) == buffer.shape:
            keys[name] = key
    return keys


def read_headers(folder: Path, what: str) -> dict[str, Any]:
    """Returns each stored tensor's header by its name, as DCP's metadata; no tensor is read.

    Args:
        folder: of safetensors.
        what: names it in a sentence.

    Raises:
        ConfigError: a tensor has a dtype that safetensors has no torch dtype for: scales, or what
            they scale.
    """
    try:
        return HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except KeyError as error:
        raise quantized(what, str(error.args[0])) from error


def check_stored(key: str, stored: Any, shape: torch.Size, folder: Path) -> None:
    """Checks one weight's header, None where there is none; raises as ``stored_keys`` does."""
    if stored is None or stored.size != shape:
        found = "is missing" if stored is None else f"has shape {list(stored.size)}"
        raise ConfigError(
            f"The teacher's weight {key!r} {found} in {str(folder)!r} (wanted {list(shape)}): its "
            "config.json and weights do not belong together."
        )
    # Which of two is read would be chance. Those that were saved in parts differ in their offsets.
    offsets = [tuple(chunk.offsets) for chunk in stored.chunks if 0 not in chunk.sizes]
    if len(set(offsets)) < len(offsets):
        raise ConfigError(
            f"The teacher's weight {key!r} stands in more than one file of {str(folder)!r}: leave "
            "only the *.safetensors there that belong together."
        )
    if (dtype := stored.properties.dtype) not in PLAIN:
        raise quantized(f"The teacher's weight {key!r} in {str(folder)!r}", str(dtype))


def key_of(name: str, model: nn.Module, stored: Collection[str]) -> str:
    """Returns the key of a base model's tensor, saved of the base model or of one with a head."""
    # Some base models have an empty prefix, as Gemma 3's under transformers 4.
    prefix = getattr(model, "base_model_prefix", "") or "model"
    return name if name in stored else f"{prefix}.{name}"


def persistent_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    saved = model.state_dict().keys()
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name in saved}


def made_on_loading(model: nn.Module, name: str) -> bool:
    """Whether transformers makes this parameter of others as it loads them; 4 never does."""
    if importlib.util.find_spec("transformers.conversion_mapping") is None:
        return False
    from transformers.conversion_mapping import get_model_conversion_mapping

    # Legacy conversions only rename, and any architecture's checkpoint may have old names.
    on_loading = get_model_conversion_mapping(model, add_legacy=False)  # type: ignore[arg-type]
    on_saving = [transform.reverse_transform() for transform in on_loading]
    return any(transform.rename_source_key(name)[1] is not None for transform in on_saving)


def made_of_others(key: str, source: Path) -> ConfigError:
    """Returns the sentence of a checkpoint whose weights are not used as they are stored."""
    return ConfigError(
        f"The teacher's weight {key!r} is not in {str(source)!r}: transformers makes it of others "
        "as it loads them, as for most mixtures of experts, and here each is read as it is "
        "stored: choose a dense teacher."
    )


def quantized(what: str, how: str) -> ConfigError:
    """Returns the sentence of weights that mean something only with their scales."""
    return ConfigError(
        f"{what} is quantized ({how}), and here weights are read as they are stored, without "
        "scales: choose the checkpoint that it was made from."
    )
