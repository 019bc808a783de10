"""What is evaluated: a checkpoint, which is exported on the way, or a Hugging Face folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import xxhash

from let_titan.checkpoint.checksums import checksum
from let_titan.checkpoint.folders import METADATA
from let_titan.config import Data
from let_titan.errors import ConfigError
from let_titan.export.folder import export
from let_titan.export.source import Source, find_source

RECORD = "let_titan.json"
"""The run's summary, which an export keeps beside the weights."""


@dataclass(frozen=True)
class Model:
    """A row of the table.

    Attributes:
        name: as the table shows it.
        folder: of Hugging Face's files.
        digest: of all of them: another model, another tokenizer, another digest.
        step: the optimiser step of the checkpoint, where it is known.
        run: the run's folder, where results are noted for ``let_titan.compare``; None where the
            checkpoint is not of its history.
        record: ``let_titan.json``; empty for a model of somebody else.
    """

    name: str
    folder: Path
    digest: str
    step: int | None
    run: Path | None
    record: dict[str, Any]

    @property
    def add_bos(self) -> bool:
        """Whether BOS stood before each document in training; of a stranger nothing is known."""
        return bool(self.record.get("special_tokens", {}).get("add_bos"))

    @property
    def add_eos(self) -> bool:
        """Whether EOS stood behind each document in training."""
        return bool(self.record.get("special_tokens", {}).get("add_eos"))

    @property
    def data(self) -> Data:
        """The run's [data], with the defaults for what it does not say; of a stranger, those."""
        known = {field.name for field in fields(Data)}
        section = self.record.get("config", {}).get("data", {})
        return Data(**{key: value for key, value in section.items() if key in known})


def find_models(
    paths: Sequence[Path], exports: Path, run: Path | None, tokenizer: str | None
) -> list[Model]:
    """Finds what each of ``paths`` means, as ``find_model`` does.

    Raises:
        ConfigError: one of them is nothing, or ``run`` would be that of several: their results
            would all be noted in it.
        RunError: an export cannot be written.
    """
    if run is not None and len(paths) > 1:
        raise ConfigError(
            f"--run {str(run)!r} is the run of one checkpoint, and {len(paths)} PATHs are given: "
            "evaluate that one by itself."
        )
    return [find_model(path, exports, run, tokenizer) for path in paths]


def find_model(
    path: Path, exports: Path, run: Path | None = None, tokenizer: str | None = None
) -> Model:
    """Finds what ``path`` means; a checkpoint is exported below ``exports``, once.

    Args:
        path: a Hugging Face folder, a ``step-N`` folder, or a run's folder: its last checkpoint.
        exports: where exported checkpoints are kept.
        run: the checkpoint's run, where it is no longer inside it.
        tokenizer: the run's tokenizer folder, where it is no longer where the run found it.

    Raises:
        ConfigError: ``path`` is neither, or its checkpoint is damaged.
        RunError: the export cannot be written.
    """
    # A run may have a config.json, too: torchtitan's job.save_config_file
    if (path / "config.json").is_file() and not (path / "summary.json").is_file():
        return hugging_face(path)
    source = find_source(path, run)
    folder = exports / export_name(source)
    if not folder.is_dir():
        export(source, folder, tokenizer=tokenizer)
    found = hugging_face(folder)
    name = "/".join(filter(None, (source.run.name, source.abandoned, source.folder.name)))
    home = None if source.abandoned else source.run
    return Model(name, folder, found.digest, source.step, home, found.record)


def export_name(source: Source) -> str:
    """Returns a name that another checkpoint has not got: DCP's own checksums are in it."""
    digest = xxhash.xxh3_128()
    for file in sorted(source.folder.glob("*.json")):
        digest.update(file.read_bytes())
    digest.update((source.folder / METADATA).read_bytes())
    return f"{source.run.name}-{source.folder.name}-{digest.hexdigest()[:12]}"


def hugging_face(folder: Path) -> Model:
    """Returns the model of a Hugging Face folder.

    Raises:
        ConfigError: it has no tokenizer.
    """
    if not any(folder.glob("tokenizer*")) and not (folder / "vocab.json").is_file():
        raise ConfigError(
            f"{str(folder)!r} has config.json and no tokenizer: put the model's tokenizer files "
            "there, since the tasks are text."
        )
    file = folder / RECORD
    record = json.loads(file.read_text()) if file.is_file() else {}
    name = folder.resolve().name
    return Model(name, folder, folder_digest(folder), record.get("step"), None, record)


def folder_digest(folder: Path) -> str:
    """Returns a digest over the names and contents of a folder's files, and those below it."""
    digest = xxhash.xxh3_128()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)} {checksum(file)}".encode())
    return digest.hexdigest()
