"""The ``pile`` data set: local ``*.jsonl.zst`` or ``*.jsonl`` files in The Pile's line format.

Reading, packing to seq_len, splitting over ranks and the position in the checkpoint are
torchtitan's (``hf_datasets/text_datasets.py``) and Hugging Face datasets'; this module adds the
entry to torchtitan's table, and mends the resume in later epochs.
"""

import glob
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Features, IterableDataset, Value, load_dataset
from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config import JobConfig
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataset

from let_titan.errors import ConfigError

PILE = "pile"


def data_files(pattern: str | None) -> list[str]:
    """Returns the files of a glob pattern (commas part several), sorted.

    Raises:
        ConfigError: no pattern, or nothing matches.
    """
    patterns = [part.strip() for part in (pattern or "").split(",") if part.strip()]
    found = {file for part in patterns for file in glob.glob(part, recursive=True)}
    files = sorted(file for file in found if Path(file).is_file())
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


class PileDataset(HuggingFaceTextDataset):
    """torchtitan's packed text, resumed exactly in later epochs, too.

    datasets ignores a position whose epoch is not the data set's own, so that a run resumed in its
    second epoch began the data anew (torchtitan 0.2.2 restores the position only).
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if "data" in state_dict:
            self._data.set_epoch(state_dict["data"]["epoch"])


def build_dataloader(
    dp_world_size: int,
    dp_rank: int,
    tokenizer: BaseTokenizer,
    job_config: JobConfig,
    infinite: bool = True,
) -> ParallelAwareDataloader:
    """Builds the training data loader for TrainSpec: this rank's share of ``training.dataset``."""
    training = job_config.training
    dataset = PileDataset(
        dataset_name=training.dataset,
        dataset_path=training.dataset_path,
        tokenizer=tokenizer,
        seq_len=training.seq_len,
        dp_rank=dp_rank,
        dp_world_size=dp_world_size,
        infinite=infinite,
    )
    return ParallelAwareDataloader(
        dataset,
        dp_rank=dp_rank,
        dp_world_size=dp_world_size,
        batch_size=training.local_batch_size,
        **asdict(training.dataloader),
    )


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
