"""A resumed run reads the same data as before, from the position that it had reached."""

import math
from collections.abc import Sequence
from typing import Any

from let_titan.build_data import IDENTITY
from let_titan.checks.checkpoint import differs
from let_titan.checks.layout import NOT_OF_DATA
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.data.files import PILE, data_fingerprint
from let_titan.data.settings import Data
from let_titan.errors import ConfigError


def resumed_data_mistakes(
    config: LetJobConfig,
    data: dict[str, Any],
    before: dict[str, Any],
    starts: Sequence[dict[str, Any]],
) -> Mistakes:
    """The same corpus, read in the same way.

    Args:
        config: of a run that resumes from its loader's position.
        data: the fingerprint of what was read so far.
        before: the config of then, in which keys of today may be missing.
        starts: of the run so far, as far as its summary tells them.
    """
    yield from file_mistakes(config, data)
    if config.training.dataset == PILE:
        yield from position_mistakes(config, before, lanes_of(before, starts))


def file_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    now = data_fingerprint(config.training.dataset, config.training.dataset_path)
    if is_other(before, now):
        yield differs(
            config,
            f"data was {before.get('path')!r}, with other files than now",
            'checkpoint.exclude_from_loading = ["dataloader"] to begin the new data from its start',
        )


def is_other(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two fingerprints are of two corpora, not of one whose files have moved.

    The sha256 says all that the list of files does.
    """
    return any(before[key] != now[key] for key in before.keys() & now.keys() - {"path", "files"})


def position_mistakes(config: LetJobConfig, before: dict[str, Any], lanes: int) -> Mistakes:
    """Keys that decide the order of the ids; the loader would refuse them, too, but later."""
    had, defaults = before.get("data", {}), Data()
    for key in IDENTITY:
        value, now = had.get(key, getattr(defaults, key)), getattr(config.data, key)
        if value != now:
            yield position_differs(config, f"data.{key}", value)
    if before["training"]["seq_len"] != config.training.seq_len:
        yield position_differs(config, "training.seq_len", before["training"]["seq_len"])
    if config.data.lanes and lanes and config.data.lanes != lanes:
        yield position_differs(config, "data.lanes", lanes)


def lanes_of(before: dict[str, Any], starts: Sequence[dict[str, Any]]) -> int:
    """Returns how many lanes the run so far read; 0 where that is not known.

    A run that was not told has one for each data-parallel rank of its first start. The summary's
    config has that start's layout only while there was no other start.
    """
    told: int = before.get("data", {}).get("lanes", 0)
    if told or [start["step"] for start in starts] != [0]:
        return told
    degrees = (before["parallelism"][f"{kind}_parallel_degree"] for kind in NOT_OF_DATA)
    return int(starts[0]["world_size"]) // math.prod(degrees)


def position_differs(config: LetJobConfig, key: str, value: Any) -> ConfigError:
    cure = f'{key} = {value!r}, add "dataloader" to checkpoint.exclude_from_loading to begin anew'
    return differs(config, f"data was read with {key} = {value!r}", cure)
