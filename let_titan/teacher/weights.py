"""Checks the files of a local teacher's weights without reading a tensor."""

import json
from pathlib import Path

from huggingface_hub.constants import SAFETENSORS_INDEX_FILE
from safetensors import SafetensorError, safe_open

from let_titan.errors import ConfigError


def check_weights(checkpoint: str) -> None:
    """Checks that the weights of a local folder are all there and whole; no tensor is read.

    Raises:
        ConfigError: names the file that is missing or damaged.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():  # a hub id, or a GGUF file
        return
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise ConfigError(
            f"The teacher's folder {str(folder)!r} holds neither *.safetensors nor *.bin: "
            "point teacher.checkpoint to a folder with weights."
        )
    for file in files:
        try:
            safe_open(file, "pt").__exit__(None, None, None)
        except (SafetensorError, OSError) as error:
            raise ConfigError(
                f"The teacher's weights {str(file)!r} are damaged ({error}): copy them anew."
            ) from error
    missing = shards_of(folder) - {file.name for file in files} if files else set()
    if missing:
        raise ConfigError(
            f"The teacher's folder {str(folder)!r} lacks {', '.join(sorted(missing))}, which its "
            "index names: copy it anew."
        )


def shards_of(folder: Path) -> set[str]:
    """Returns the files that a sharded checkpoint's index names, if it has one."""
    index = folder / SAFETENSORS_INDEX_FILE
    return set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else set()
