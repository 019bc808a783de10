"""Tiny classifiers of the made-up time series."""

import torch
from series.data import load
from series.made_up import MADE_UP
from series.patches import PatchTransformer
from series.timesnet import TimesNet
from time_series import STUDY

BASELINE, LET, KD = STUDY.arms
DATA = load(MADE_UP)


def model(kind: str):
    """Builds a TimesNet, or a Transformer over patches, always with the same weights."""
    torch.manual_seed(3)
    if kind == "timesnet":
        return TimesNet(*DATA.shape, width=8, n_blocks=2)
    return PatchTransformer(*DATA.shape, width=8, n_blocks=2, patch=DATA.patch)
