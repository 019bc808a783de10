"""The largest mean loss of a data-parallel rank, whose sequences several ranks hold in parts."""

import pytest
import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.distributed import ParallelDims

from let_titan.rank_loss import RankLoss
from tests.world import run_world

LOSSES = torch.rand(2, 2, 3, 8, generator=torch.Generator().manual_seed(2))
"""Of each token: data-parallel ranks, microbatches, sequences, positions."""
VALID = torch.rand(LOSSES.shape, generator=torch.Generator().manual_seed(3)) < 0.7


def largest(steps):
    """Returns what the ranks say of each step, in which ``valid`` tokens count."""
    dims = ParallelDims(1, 2, 2, 1, 1, 1, 1, 4)
    row, part = (dims.get_mesh(name).get_local_rank() for name in ("batch", "cp"))
    rank_loss, found = RankLoss(dims), []
    for valid in steps:
        rank_loss.begin()
        for losses, counted in zip(LOSSES[row], valid[row], strict=True):
            labels = torch.where(counted, 1, IGNORE_INDEX)
            mine = slice(4 * part, 4 * part + 4)
            rank_loss.add((losses * counted)[:, mine].sum(), labels)
        found.append(rank_loss.largest())
    said = [None] * 4
    dist.all_gather_object(said, found)
    return said


def test_it_is_that_of_whole_sequences_on_every_rank(tmp_path):
    bare = VALID.clone()
    bare[0] = False  # a rank without a label has no loss
    steps = [VALID, bare, VALID.flip(0)]
    wanted = []
    for valid in steps:
        means = [LOSSES[row][valid[row]].mean() if valid[row].any() else 0.0 for row in (0, 1)]
        assert means[0] != means[1]
        wanted.append(max(float(mean) for mean in means))
    said = run_world(4, largest, tmp_path, steps)
    assert said == [pytest.approx(wanted, rel=1e-6)] * 4
