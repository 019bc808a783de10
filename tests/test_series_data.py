"""recipes/series: sets of time series as the models read them."""

import math
import sys

import numpy as np
import pytest
import torch
from series.data import MOST_STEPS, SETS, encode, load, split_off
from series.made_up import made_up

from tests.classifiers import DATA


def test_encoding_pads_masks_and_standardises_by_train_alone():
    train_split, test_split = made_up("train"), made_up("test")
    data = encode("x", train_split, test_split)
    lengths = data.train.mask.sum(1).tolist()
    assert lengths == [series.shape[1] for series in train_split[0]]
    assert data.shape[1] % data.patch == 0
    assert (data.train.series[~data.train.mask] == 0).all()
    real = data.train.series[data.train.mask]
    torch.testing.assert_close(real.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(real.std(0), torch.ones(2), atol=1e-5, rtol=0)
    shifted = [series + 100 for series in test_split[0]]
    assert torch.equal(
        encode("x", train_split, (shifted, test_split[1])).train.series, data.train.series
    )


def test_long_series_become_means_of_cells():
    series = np.arange(2.0 * (MOST_STEPS + 10))[None]
    data = encode("x", ([series, -series], np.array(["a", "b"])), ([series], np.array(["b"])))
    assert data.cell == 3
    assert data.train.mask[0].sum() == math.ceil(series.shape[1] / 3)
    first, second, third = data.train.series[0, :3, 0].tolist()
    assert second - first == pytest.approx(third - second) and second > first


def test_validation_is_a_share_of_every_class():
    fit, validation = split_off(DATA.train, 0.25, seed=0)
    assert len(fit) + len(validation) == len(DATA.train)
    assert validation.labels.bincount().tolist() == [1, 1, 1]
    other = split_off(DATA.train, 0.25, seed=1)[1]
    assert not torch.equal(validation.series, other.series)


def test_a_set_without_aeon_tells_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(ValueError, match=r"bash scripts/series_env\.sh"):
        load("GunPoint")


@pytest.mark.parametrize("name", SETS)
def test_sets_of_aeon_are_the_archives(name):
    """Run with .venv-series/bin/python -m pytest tests/test_series_data.py."""
    pytest.importorskip("aeon", reason="no aeon here: bash scripts/series_env.sh")
    known = {
        "JapaneseVowels": (270, 370, 12, 29, 9),
        "BasicMotions": (40, 40, 6, 100, 4),
        "ItalyPowerDemand": (67, 1029, 1, 24, 2),
        "GunPoint": (50, 150, 1, 150, 2),
        "ArrowHead": (36, 175, 1, 251, 3),
        "OSULeaf": (200, 242, 1, 427, 6),
        "ACSF1": (100, 100, 1, 1460, 10),
    }
    data = load(name)
    channels, steps, classes = data.shape
    assert (len(data.train), len(data.test), channels, data.longest, classes) == known[name]
    assert steps <= MOST_STEPS + data.patch
    assert data.train.series.isfinite().all() and data.test.series.isfinite().all()
    lengths = data.train.mask.sum(1)
    assert (len(lengths.unique()) > 1) == (name == "JapaneseVowels")


def test_made_up_set_has_the_loaders_form():
    datasets = pytest.importorskip("aeon.datasets", reason="no aeon: bash scripts/series_env.sh")
    for series, labels in (
        datasets.load_classification("JapaneseVowels", split="train"),
        made_up("train"),
    ):
        assert isinstance(series, list) and series[0].dtype == np.float64
        assert len({len(one) for one in series}) == 1 and len({one.shape[1] for one in series}) > 1
        assert labels.dtype.kind == "U" and labels.shape == (len(series),)
