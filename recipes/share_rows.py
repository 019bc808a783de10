"""Is it better to share the teacher's rows, among tensor-parallel ranks and along a pipeline?

    python recipes/share_rows.py [--ranks 2] [--rounds 7] [--out FOLDER]

Tensor-parallel ranks hold the same batch, and each is to have its chunk of every sequence's states:
shared, or all rows computed by each. A pipeline's ranks hold the same batch, too, and the first is
to have all states: shared, or computed by it alone while the other waits.

Processes on this machine, a core each, over gloo; a teacher of SmolLM-135M's shape with random
weights in fp32. The two ways take turns, another one first in each round, and give the same states.
Writes results.json and report.md to recipes/results/share_rows/.
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import let_titan  # noqa: F401  # isort: skip  # it must be imported before torchtitan

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from overhead.setting import SMOLLM_135M, Shape
from result_files import write
from torchtitan.distributed import ParallelDims
from transformers import LlamaConfig, LlamaModel

from let_titan.alignment import rows_of_this_rank, share_of_batch
from let_titan.let.pipeline_rows import PipelineRows
from let_titan.run.summary import surroundings
from let_titan.teacher.description import describe
from let_titan.teacher.model import Teacher

OUT = Path(__file__).parent / "results" / "share_rows"
ROWS, SEQ_LEN, VOCABULARY = 4, 256, 1024
SAME = 1e-4
"""Matrices of other sizes round otherwise; by more than this the two ways would differ."""


def build_teacher(shape: Shape) -> Teacher:
    """The same on every rank."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        vocab_size=VOCABULARY,
    )
    model = LlamaModel(config).eval()
    return Teacher(model, ["last"], describe(model, "teacher", ["last"], model.dtype, SEQ_LEN))


Ways = dict[str, Callable[[], torch.Tensor]]
"""To a rank's states, of which a pipeline's rank that is no owner has none."""


def tensor_ways(teacher: Teacher, tokens: torch.Tensor, dims: ParallelDims) -> Ways:
    mine = tokens[share_of_batch(ROWS, dims)]
    return {
        "whole": lambda: rows_of_this_rank(teacher(tokens)[0], ROWS, dims),
        "shared": lambda: rows_of_this_rank(teacher(mine)[0], ROWS, dims),
    }


def pipeline_ways(teacher: Teacher, tokens: torch.Tensor, dims: ParallelDims) -> Ways:
    mesh = dims.get_mesh("pp")
    owner, none = mesh.get_local_rank() == 0, torch.empty(0)
    rows = PipelineRows(mesh, [0])
    mine = tokens[rows.part_of(slice(0, ROWS))]
    return {
        "whole": lambda: teacher(tokens)[0] if owner else none,
        "shared": lambda: [*rows.handed_over(teacher(mine)), none][0],
    }


AXES = {"tp": ("tensor-parallel", tensor_ways), "pp": ("pipeline", pipeline_ways)}
"""{axis of the mesh: what its ranks are called, their ways}."""


def timed(way: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Returns the seconds until the last rank has its states, and this rank's."""
    dist.barrier()
    begin = time.monotonic()
    states = way()
    dist.barrier()
    return time.monotonic() - begin, states


def on_a_rank(
    rank: int, axis: str, ranks: int, rounds: int, shape: Shape, port: int, found: Any
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    degrees = dict.fromkeys(("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep", "etp"), 1)
    dims = ParallelDims(**degrees | {axis: ranks}, world_size=ranks)
    teacher, tokens = build_teacher(shape), torch.randint(VOCABULARY, (ROWS, SEQ_LEN))
    both = AXES[axis][1](teacher, tokens, dims)
    (_, whole), (_, shared) = map(timed, both.values())  # a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for number in range(rounds):
        for name in sorted(both, reverse=number % 2 == 1):
            seconds[name].append(timed(both[name])[0])
    if rank == 0:
        found.update(seconds=seconds, difference=float((whole - shared).norm() / whole.norm()))
    dist.destroy_process_group()


def measure(axis: str, ranks: int, rounds: int, shape: Shape = SMOLLM_135M) -> dict[str, Any]:
    """Measures the ways of ``ranks`` of an axis; the first rank has states under each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(on_a_rank, (axis, ranks, rounds, shape, port, found), nprocs=ranks)
        measured = dict(found)
    if measured["difference"] > SAME:
        raise SystemExit(f"The two ways differ by {measured['difference']:.1e} of the states.")
    pairs = zip(measured["seconds"]["shared"], measured["seconds"]["whole"], strict=True)
    ratios = [shared / whole for shared, whole in pairs]
    return {
        "ranks": ranks,
        "rounds": rounds,
        **measured,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }


def report(results: dict[str, Any], where: dict[str, Any]) -> str:
    hardware, versions = where["hardware"], where["versions"]
    lines = []
    for axis, (name, _) in AXES.items():
        one = results[axis]
        ratio, seconds = one["ratio"], map(statistics.median, one["seconds"].values())
        whole, shared = seconds
        lines.append(
            f"| {one['ranks']} {name} ranks | {whole:.2f} s | {shared:.2f} s "
            f"| **{ratio['median']:.3f}** ({ratio['least']:.3f} to {ratio['most']:.3f}) "
            f"| {one['rounds']} | {one['difference']:.0e} |"
        )
    rows = "\n".join(lines)
    return f"""# The teacher's rows, shared by the ranks that hold the same batch, or not

How long it takes until every rank has the teacher's states that it needs. Tensor-parallel ranks
need their chunk of every sequence: each computes all rows whole, or its share, which an all-to-all
hands on. Of a pipeline's ranks the one with the aligned block needs all: it computes all rows while
the others wait, or each computes its share and hands it over (`teacher.pipeline = "all"`).

| | computed whole | shared | shared / whole (of the rounds) | rounds | states differ by |
|---|--:|--:|--:|--:|--:|
{rows}

The two ways in turn; seconds are medians. A teacher of SmolLM-135M's shape in fp32,
{ROWS} x {SEQ_LEN} tokens, processes of one core each over gloo on {hardware["cpu"]}, torch
{versions["torch"]}. It says which way is to be preferred, and nothing of a GPU's times.
Made by `python recipes/share_rows.py`.
"""


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--ranks", type=int, default=2)
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--out", type=Path, default=OUT)
    own = flags.parse_args(args)
    if own.ranks < 2 or ROWS % own.ranks:  # else each rank computes all rows, and nothing is shared
        flags.error(f"--ranks {own.ranks}: they share {ROWS} rows, so there must be 2 or {ROWS}.")
    shape = {"teacher": asdict(SMOLLM_135M), "batch": [ROWS, SEQ_LEN]}
    results = shape | {axis: measure(axis, own.ranks, own.rounds) for axis in AXES}
    where = surroundings()
    write(own.out, results, where, report(results, where))


if __name__ == "__main__":
    main()
