"""Writes a Hugging Face folder from a checkpoint: all of it, or nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GenerationConfig

from let_titan.checkpoint.checksums import damaged_files, read_metadata
from let_titan.disk import write_whole
from let_titan.errors import ConfigError, writing
from let_titan.export.card import model_card
from let_titan.export.shape import config_json
from let_titan.export.source import Source
from let_titan.export.tokens import tokenizer_of, write_tokenizer
from let_titan.export.weights import WeightStream, check_parameters, embedding_rows, write_shards
from let_titan.tokenizer.build import RunTokenizer, embedding_size

SHARD_GB = 4
"""Largest safetensors file, in 1e9 bytes; it is what an export holds in memory."""


def export(
    source: Source,
    out: Path,
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer: str | None = None,
    shard_gb: float = SHARD_GB,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Exports the student of ``source`` to the new folder ``out``.

    Args:
        source: from ``find_source``.
        out: must not exist, or be empty.
        dtype: of the weights that are written.
        tokenizer: folder of the run's tokenizer, where it is no longer where the run found it.
        shard_gb: largest safetensors file, in 1e9 bytes.
        tell: is told of each file of weights.

    Raises:
        ConfigError: ``out`` is taken, or the checkpoint or its tokenizer is damaged or another's.
        RunError: the folder cannot be written.
    """
    check_free(out)
    check_intact(source.folder)
    metadata = read_metadata(source.folder)
    words = tokenizer_of(source, tokenizer, embedding_rows(metadata, source.folder))
    args = source.model_args(embedding_size(words))
    check_parameters(metadata, args, source.folder)
    stream = WeightStream(source.folder, metadata, args, dtype)

    def write(folder: Path) -> None:
        for name in write_shards(stream, folder, int(shard_gb * 1e9)):
            tell(name)
        write_json(folder / "config.json", config_json(args, dtype) | special_ids(words))
        GenerationConfig(**special_ids(words)).save_pretrained(folder)
        write_tokenizer(words, folder, args.max_seq_len)
        record = {"checkpoint": str(source.folder), "step": source.step, **source.summary}
        write_json(folder / "let_titan.json", record)
        (folder / "README.md").write_text(model_card(source, str(dtype).removeprefix("torch.")))

    with writing(out):
        write_whole(out, write)


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def special_ids(tokenizer: RunTokenizer) -> dict[str, int | None]:
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}


def check_free(out: Path) -> None:
    """Checks that nothing would be overwritten.

    Raises:
        ConfigError: ``out`` is a file, a folder that holds something, or the one we are in.
        RunError: the file system refuses to take it away.
    """
    with writing(out):
        if out.is_dir() and not any(out.iterdir()):
            if out.samefile("."):
                raise ConfigError(
                    f"{str(out)!r} is the folder that you are in, which the new one would replace: "
                    "name a new folder."
                )
            out.rmdir()
    if out.exists():
        raise ConfigError(f"{str(out)!r} exists: name a new folder, or remove that one.")


def check_intact(folder: Path) -> None:
    """Compares a checkpoint with its checksums.

    Raises:
        ConfigError: names the files that are missing or damaged.
    """
    damaged = damaged_files(folder)
    if damaged:
        raise ConfigError(
            f"The checkpoint {str(folder)!r} is damaged: {', '.join(damaged)} missing or not as "
            "written. Restore what is named, or export another checkpoint."
        )
