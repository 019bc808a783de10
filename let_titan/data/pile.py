"""The ``pile`` data set: local ``*.jsonl.zst`` or ``*.jsonl`` files in The Pile's line format.

Reading, packing to seq_len, splitting over ranks and the position in the checkpoint are
torchtitan's (``hf_datasets/text_datasets.py``) and Hugging Face datasets'; this module only adds
the entry to torchtitan's table.
"""

import glob
import hashlib
from pathlib import Path
from typing import Any

from datasets import Features, IterableDataset, Value, load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS

from let_titan.errors import ConfigError

PILE = "pile"


def data_files(pattern: str | None) -> list[str]:
    """Returns the files of a glob pattern (commas part several), sorted.

    Raises:
        ConfigError: no pattern, or nothing matches.
    """
    patterns = [part.strip() for part in (pattern or "").split(",") if part.strip()]
    files = sorted({file for part in patterns for file in glob.glob(part, recursive=True)})
    if not files:
        raise ConfigError(
            f"dataset_path = {pattern!r} matches no file: give the glob of your *.jsonl.zst or "
            "*.jsonl files (relative to where you start)."
        )
    return files


def load_pile(pattern: str) -> IterableDataset:
    """Streams the texts of the files that match ``pattern``."""
    dataset = load_dataset("json", data_files=data_files(pattern), split="train", streaming=True)
    return dataset.select_columns(["text"]).cast(Features({"text": Value("string")}))


def text_of(sample: dict[str, Any]) -> str:
    return sample["text"]


def register_pile() -> None:
    """Adds ``pile`` to torchtitan's table of data sets; safe to call again."""
    DATASETS[PILE] = DatasetConfig(path="", loader=load_pile, sample_processor=text_of)


def check_dataset(name: str, pattern: str | None, section: str) -> None:
    """Checks that a data set of the config can be opened.

    Raises:
        ConfigError: an unknown data set, or a pattern that matches nothing.
    """
    if name not in {*DATASETS, PILE}:
        raise ConfigError(
            f"{section}.dataset = {name!r} is unknown: choose one of "
            f"{', '.join(sorted({*DATASETS, PILE}))}."
        )
    if name == PILE:
        data_files(pattern)


def data_fingerprint(name: str, pattern: str | None) -> dict[str, Any]:
    """Returns what tells one corpus from another: its files' names and sizes, and their hash."""
    if name != PILE:
        return {"dataset": name, "path": pattern}
    files = {Path(file).name: Path(file).stat().st_size for file in data_files(pattern)}
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    return {"dataset": name, "path": pattern, "files": files, "sha256_of_names_and_sizes": digest}
