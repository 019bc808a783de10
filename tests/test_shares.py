"""Who reads which rows for the teacher, and that every rank gets the states of its own tokens."""

import pytest
import share_rows
import torch
import torch.distributed as dist
from overhead.setting import Shape
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.context_parallel import cp_shard

from let_titan.alignment import all_rows, rows_of_this_rank, share_of_batch, sharing_axes
from let_titan.let.pipeline_rows import PipelineRows, ranks_that_own
from let_titan.run.summary import surroundings
from tests.world import run_world

S, WIDTH = 16, 3
AXES = {8: ["tp", "cp"], 4: ["tp", "cp"], 6: ["tp"], 2: ["tp"], 1: []}
"""{rows: over which of two tensor- and two context-parallel ranks they can be divided}."""


def exchanged_by_rank():
    """On each rank of cp 2 x tp 2: what it reads, and whether what it gets is what it should."""
    dims = ParallelDims(dp_replicate=1, dp_shard=1, cp=2, tp=2, pp=1, ep=1, etp=1, world_size=4)
    dims.build_mesh()
    places = torch.arange(S).unsqueeze(0)
    ((positions,), _) = cp_shard(dims.get_mesh("cp"), (places,), None, "headtail")
    chunk = positions[0].chunk(2)[dims.get_mesh("tp").get_local_rank()]
    found = {}
    for rows, axes in AXES.items():
        assert sharing_axes(rows, dims) == axes
        whole = torch.arange(rows * S * WIDTH).view(rows, S, WIDTH).float()
        mine, where = share_of_batch(rows, dims), positions.expand(rows, -1)
        share = whole[mine]
        for given in (share, whole):  # a mask is whole
            got = rows_of_this_rank(given, rows, dims, where)
            assert torch.equal(got, whole[:, chunk]) and got.is_contiguous()
            assert torch.equal(all_rows(given, rows, dims, where), whole[:, positions[0]])
        assert torch.equal(all_rows(share[:, 0, 0], rows, dims), whole[:, 0, 0])
        found[rows] = (mine.start, mine.stop)
    everyones: list[dict[int, tuple[int, int]]] = [{}] * 4
    dist.all_gather_object(everyones, found)
    return everyones


def test_ranks_divide_the_rows_and_exchange_their_states(tmp_path):
    found = run_world(4, exchanged_by_rank, tmp_path)
    for rows, axes in AXES.items():
        read = [number for mine in found for number in range(*mine[rows])]
        assert sorted(read) == sorted([*range(rows)] * (4 // 2 ** len(axes)))


def handed_over(layers=2):
    """On each rank of pp 2: what it reads, and what comes to it, for each set of owners."""
    dims = ParallelDims(dp_replicate=1, dp_shard=1, cp=1, tp=1, pp=2, ep=1, etp=1, world_size=2)
    dims.build_mesh()
    rank, found = dist.get_rank(), {}
    for owners in OWNERS:
        mesh = dims.get_mesh("pp")
        assert ranks_that_own(rank in owners, mesh) == list(owners)
        rows = PipelineRows(mesh, owners)
        part = rows.part_of(slice(4, 10))
        states = [torch.arange(10.0).view(10, 1, 1)[part] + 100 * n for n in range(layers)]
        found[owners] = (part, [each.flatten().tolist() for each in rows.handed_over(states)])
    everyones: list[dict] = [{}] * 2
    dist.all_gather_object(everyones, found)
    return everyones


OWNERS = ((0,), (1,), (0, 1))


def test_a_pipelines_ranks_hand_their_rows_to_those_that_need_them(tmp_path):
    whole = [[100.0 * n + row for row in range(4, 10)] for n in range(2)]
    for rank, found in enumerate(run_world(2, handed_over, tmp_path)):
        for owners, (part, states) in found.items():
            assert part == (slice(4, 7), slice(7, 10))[rank]
            assert states == (whole if rank in owners else [])


@pytest.mark.parametrize("ranks", ["1", "3"])
def test_ranks_that_cannot_share_the_rows_are_a_mistake(ranks, capsys):
    with pytest.raises(SystemExit):
        share_rows.main(["--ranks", ranks])
    assert "they share 4 rows" in capsys.readouterr().err


@pytest.mark.parametrize("axis", share_rows.AXES)
def test_the_recipe_times_two_ways_to_the_same_states(axis):
    """It ends where they differ, as they do if rows or chunks are another's."""
    results = share_rows.measure(axis, ranks=2, rounds=2, shape=Shape(16, 2, 2, 1, 32))
    assert results["difference"] < share_rows.SAME
    assert [len(each) for each in results["seconds"].values()] == [2, 2]
    ratio = results["ratio"]
    assert 0 < ratio["least"] <= ratio["median"] <= ratio["most"]
    said = share_rows.report(dict.fromkeys(share_rows.AXES, results), surroundings())
    assert said.count(f"**{ratio['median']:.3f}** (") == len(share_rows.AXES)
