"""Where a checkpoint keeps each parameter of a teacher, by the headers of its safetensors."""

import importlib.util
from pathlib import Path

from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader

from let_titan.errors import ConfigError


def stored_keys(model: nn.Module, folder: Path) -> dict[str, str]:
    """Returns the key of each of a base model's parameters; no tensor is read.

    Args:
        model: with or without weights, sharded or whole.
        folder: of safetensors, saved of a base model or of one with a head.

    Raises:
        ConfigError: a weight is missing in the folder, or has another shape.
    """
    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    prefix = getattr(model, "base_model_prefix", "") + "."
    keys = {}
    for name, parameter in model.named_parameters():
        key = name if name in stored else prefix + name
        size = getattr(stored.get(key), "size", None)
        if size is None and made_on_loading(model, name):
            raise made_of_others(key, folder)
        if size != parameter.shape:
            found = "is missing" if size is None else f"has shape {list(size)}"
            raise ConfigError(
                f"The teacher's weight {key!r} {found} in {str(folder)!r} (wanted "
                f"{list(parameter.shape)}): its config.json and weights do not belong together."
            )
        keys[name] = key
    return keys


def made_on_loading(model: nn.Module, name: str) -> bool:
    """Whether transformers makes this parameter of others that it stores, as 4 never does."""
    if importlib.util.find_spec("transformers.conversion_mapping") is None:
        return False
    from transformers.conversion_mapping import get_model_conversion_mapping

    # The legacy ones are of old names, which any architecture's checkpoint may have.
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
