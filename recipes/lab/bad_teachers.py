"""Worse teachers made of a good one: noise on its weights, or weights drawn anew."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SEED = 0
WEIGHTS = "model.safetensors"


def make_worse(good: Path, bad: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Writes ``bad``, a copy of the Hugging Face folder ``good`` with each matrix changed.

    In float64, so that the same bytes come out wherever it is done.
    """
    whole = shutil.copytree(good, bad.with_suffix(".part"), dirs_exist_ok=True)
    found = load_file(good / WEIGHTS)
    changed = {
        name: change(weight.double()).to(weight.dtype) if weight.ndim > 1 else weight
        for name, weight in found.items()
    }
    save_file(changed, Path(whole) / WEIGHTS, metadata={"format": "pt"})
    Path(whole).rename(bad)


def with_noise(level: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Adds normal noise of ``level`` standard deviations of the matrix itself."""
    generator = torch.Generator().manual_seed(SEED)
    return lambda w: w + level * w.std() * torch.randn(w.shape, generator=generator, dtype=w.dtype)


def drawn_anew() -> Callable[[torch.Tensor], torch.Tensor]:
    """Keeps a matrix's standard deviation and nothing else."""
    generator = torch.Generator().manual_seed(SEED)
    return lambda w: w.std() * torch.randn(w.shape, generator=generator, dtype=w.dtype)
