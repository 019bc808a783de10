"""UEA and UCR sets as tensors: official splits, variable length as a mask, nothing from the test.

Sets of the archives (Bagnall et al., 2018; Dau et al., 2019) come in aeon's wheel and are read by
its own loader.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from series.made_up import MADE_UP, made_up

SETS = (
    "JapaneseVowels",
    "BasicMotions",
    "ItalyPowerDemand",
    "GunPoint",
    "ArrowHead",
    "OSULeaf",
    "ACSF1",
)
MOST_STEPS = 64
"""Longer series are averaged over equal cells (PAA; Keogh et al., 2001), for all models alike."""

Raw = tuple[Sequence[np.ndarray], np.ndarray]
"""As aeon's loader gives a split: arrays [channels, steps], and labels as strings."""


@dataclass(frozen=True)
class Split:
    """Attributes:
    series: [N, T, channels], standardised, zero where there is no step.
    mask: [N, T] bool, true where there is one.
    labels: [N].
    """

    series: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: torch.Tensor) -> "Split":
        """Returns the series of the indices ``which``."""
        return Split(self.series[which], self.mask[which], self.labels[which])


@dataclass(frozen=True)
class Dataset:
    """Attributes:
    n_classes: in train; a class that only test has is a mistake.
    longest: steps of the longest series, as it came.
    cell: original steps that were averaged to one.
    patch: steps of a patch, of which T is a multiple.
    digest: of both raw splits.
    """

    name: str
    train: Split
    test: Split
    n_classes: int
    longest: int
    cell: int
    patch: int
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, steps, classes: what a model is built for."""
        _, n_steps, n_channels = self.train.series.shape
        return n_channels, n_steps, self.n_classes


def load(name: str) -> Dataset:
    """Returns the set ``name``, of ``SETS`` or ``MADE_UP``.

    Raises:
        ValueError: aeon is not installed here.
    """
    if name == MADE_UP:
        return encode(name, made_up("train"), made_up("test"))
    try:
        from aeon.datasets import load_classification
    except ImportError as error:
        raise ValueError(
            f"{name} is in aeon's wheel, and aeon is not here: run bash scripts/series_env.sh, "
            "then .venv-series/bin/python recipes/time_series.py."
        ) from error
    return encode(name, *(load_classification(name, split=split) for split in ("train", "test")))


def encode(name: str, train: Raw, test: Raw) -> Dataset:
    """Makes tensors of both splits; classes, means and deviations are those of ``train``.

    The length is the longer split's, since a model's positions must reach it.
    """
    longest = max(series.shape[1] for series in (*train[0], *test[0]))
    cell = math.ceil(longest / MOST_STEPS)
    steps = math.ceil(longest / cell)
    patch = 4 if steps <= 24 else 8
    steps = math.ceil(steps / patch) * patch
    splits = [
        [shortened(torch.tensor(series, dtype=torch.float32).T, cell) for series in raw[0]]
        for raw in (train, test)
    ]
    known = torch.cat(splits[0])
    mean, deviation = known.mean(0), known.std(0).clamp_min(1e-6)
    classes = sorted(set(train[1]))

    def padded(split: list[torch.Tensor], labels: np.ndarray) -> Split:
        return Split(
            torch.stack([pad((series - mean) / deviation, steps) for series in split]),
            torch.stack([torch.arange(steps) < len(series) for series in split]),
            torch.tensor([classes.index(label) for label in labels]),
        )

    return Dataset(
        name,
        padded(splits[0], train[1]),
        padded(splits[1], test[1]),
        len(classes),
        longest,
        cell,
        patch,
        digest_of(train, test),
    )


def shortened(series: torch.Tensor, cell: int) -> torch.Tensor:
    """Averages [T, channels] over cells of ``cell`` steps; the last may hold fewer."""
    return torch.stack([part.mean(0) for part in series.split(cell)])


def pad(series: torch.Tensor, steps: int) -> torch.Tensor:
    return F.pad(series, (0, 0, 0, steps - len(series)))


def digest_of(*splits: Raw) -> str:
    """Returns 12 hex digits over all series and labels."""
    digest = hashlib.sha256()
    for series, labels in splits:
        for array in series:
            digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
        digest.update("\n".join(labels).encode())
    return digest.hexdigest()[:12]


def split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Returns (the rest, a ``share`` of every class, of at least one series), drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    taken = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        of_class = (split.labels == label).nonzero().flatten()
        order = torch.randperm(len(of_class), generator=generator)
        taken[of_class[order[: max(1, round(share * len(of_class)))]]] = True
    return split.take((~taken).nonzero().flatten()), split.take(taken.nonzero().flatten())
