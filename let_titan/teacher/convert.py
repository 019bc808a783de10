"""Teachers that are not safetensors: GGUF files and ``.bin`` weights, converted once.

They go to ``$LET_TITAN_CACHE``, else ``~/.cache/let_titan``, from where each rank reads its part.
"""

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from let_titan.disk import write_whole
from let_titan.errors import ConfigError, writing
from let_titan.teacher.gguf_file import tokenizer_of_gguf
from let_titan.teacher.weights import check_weights


def cache_root() -> Path:
    """Returns the folder of converted teachers."""
    return Path(os.environ.get("LET_TITAN_CACHE", "~/.cache/let_titan")).expanduser()


def cache_folder(path: Path) -> Path:
    """Returns the cache's folder for a local file or folder, a new one after each change of it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
    return cache_root() / f"{path.stem}-{digest}"


def convert_gguf(path: Path, out: Path) -> None:
    """Writes a GGUF file as a Hugging Face folder (fp32 safetensors, config, tokenizer).

    transformers dequantises on loading and then refuses to save until its quantiser is gone.
    """

    with torch.random.fork_rng(devices=[]):  # a model is built on the way
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = tokenizer_of_gguf(path)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    with writing(out):
        write_whole(out, save)


def convert_bin(source: Path, out: Path, trust_remote_code: bool = False) -> None:
    """Writes a folder of ``.bin`` weights, read as weights only, as safetensors."""
    check_weights(str(source))

    try:
        with torch.random.fork_rng(devices=[]):  # a model is built on the way
            model = AutoModelForCausalLM.from_pretrained(
                source,
                use_safetensors=False,
                weights_only=True,
                dtype="auto",
                trust_remote_code=trust_remote_code,
            )
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ConfigError(
            f"The teacher's *.bin in {str(source)!r} cannot be read as weights only "
            f"({str(error).strip().splitlines()[0]}): give a teacher with *.safetensors."
        ) from error

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        for file in filter(Path.is_file, source.glob("*token*")):
            shutil.copy(file, folder)

    with writing(out):
        write_whole(out, save)
