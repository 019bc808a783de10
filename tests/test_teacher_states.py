"""What a teacher's states have in common, and README's figures of it."""

import json
from pathlib import Path

import pytest
import teacher_states
import torch

ROOT = Path(__file__).parents[1]


def test_shares_of_states_that_can_be_worked_out():
    """Half of the energy is the second coordinate's, which never changes; the rest is noise."""
    torch.manual_seed(0)
    noise = torch.nn.functional.normalize(torch.randn(50_000, 32), dim=-1)
    noise[:, 1] = 0
    states = noise.clone()
    states[:, 1] = noise.norm(dim=-1)
    found = teacher_states.shares(-3 * states)
    assert (found["tokens"], found["width"], found["largest_coordinate"]) == (50_000, 32, 1)
    for share in ("energy_of_largest_coordinate", "energy_of_mean"):
        assert found[share] == pytest.approx(0.5, abs=1e-3)
    for cosine in ("cosine_of_largest_coordinate", "cosine_of_best_constant"):
        assert found[cosine] == pytest.approx(0.5**0.5, abs=1e-3)


def test_readme_says_what_was_measured():
    found = json.loads((teacher_states.OUT / "results.json").read_text())
    readme = " ".join((ROOT / "README.md").read_text().split())
    share, cosine = found["energy_of_largest_coordinate"], found["cosine_of_best_constant"]
    assert f"coordinate of {found['width']} carries {share:.0%}".replace("%", " %") in readme
    assert f"one constant vector has a cosine of {cosine:.2f} to them" in readme
