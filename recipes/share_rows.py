"""Do tensor-parallel ranks do better to share the teacher's rows than to compute all of them each?

    python recipes/share_rows.py [--ranks 2] [--rounds 7] [--out FOLDER]

Processes on this machine, a core each, over gloo; a teacher of SmolLM-135M's shape with random
weights in fp32; a batch of which each rank is to hold its chunk of every sequence. The two ways
take turns, another one first in each round, and give the same states. Writes results.json and
report.md to recipes/results/share_rows/.
"""

import argparse
import json
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
from torchtitan.distributed import ParallelDims
from transformers import LlamaConfig, LlamaModel

from let_titan.alignment import rows_of_this_rank, share_of_batch
from let_titan.summary import surroundings
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
    return Teacher(LlamaModel(config).eval(), ["last"], {})


def ways(teacher: Teacher, dims: ParallelDims) -> dict[str, Callable[[], torch.Tensor]]:
    tokens = torch.randint(VOCABULARY, (ROWS, SEQ_LEN))
    mine = tokens[share_of_batch(ROWS, dims)]
    return {
        "whole": lambda: rows_of_this_rank(teacher(tokens)[0], ROWS, dims),
        "shared": lambda: rows_of_this_rank(teacher(mine)[0], ROWS, dims),
    }


def timed(way: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Returns the seconds until the last rank has its states, and this rank's."""
    dist.barrier()
    begin = time.monotonic()
    states = way()
    dist.barrier()
    return time.monotonic() - begin, states


def on_a_rank(rank: int, ranks: int, rounds: int, shape: Shape, port: int, found: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    dims = ParallelDims(
        dp_replicate=1, dp_shard=1, cp=1, tp=ranks, pp=1, ep=1, etp=1, world_size=ranks
    )
    both = ways(build_teacher(shape), dims)
    (_, whole), (_, shared) = map(timed, both.values())  # a warm-up
    difference = float((whole - shared).norm() / whole.norm())
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for number in range(rounds):
        for name in sorted(both, reverse=number % 2 == 1):
            seconds[name].append(timed(both[name])[0])
    if rank == 0:
        found.update(seconds=seconds, difference=difference)
    dist.destroy_process_group()


def measure(ranks: int, rounds: int, shape: Shape = SMOLLM_135M) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(on_a_rank, (ranks, rounds, shape, port, found), nprocs=ranks)
        measured = dict(found)
    if measured["difference"] > SAME:
        raise SystemExit(f"The two ways differ by {measured['difference']:.1e} of the states.")
    pairs = zip(measured["seconds"]["shared"], measured["seconds"]["whole"], strict=True)
    ratios = [shared / whole for shared, whole in pairs]
    return {
        "teacher": asdict(shape),
        "batch": [ROWS, SEQ_LEN],
        "ranks": ranks,
        "rounds": rounds,
        **measured,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }


def report(results: dict[str, Any], where: dict[str, Any]) -> str:
    ratio, ranks = results["ratio"], results["ranks"]
    seconds = {name: statistics.median(each) for name, each in results["seconds"].items()}
    hardware, versions = where["hardware"], where["versions"]
    return f"""# The teacher's rows, shared by tensor-parallel ranks or computed whole by each

Shared, with the all-to-all that hands each rank its chunk of every sequence, the teacher's states
take **{ratio["median"]:.3f}** of the time that they take where each of {ranks} ranks computes them
whole ({ratio["least"]:.3f} to {ratio["most"]:.3f} over {results["rounds"]} rounds, the two ways in
turn; medians {seconds["shared"]:.2f} s and {seconds["whole"]:.2f} s). Both give the same states
(within {results["difference"]:.0e} of their norm).

SmolLM-135M's shape in fp32, {ROWS} x {SEQ_LEN} tokens, {ranks} processes of one core each over gloo
on {hardware["cpu"]}, torch {versions["torch"]}. It says which way is to be preferred, and nothing
of a GPU's times.
Made by `python recipes/share_rows.py`.
"""


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--ranks", type=int, default=2)
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--out", type=Path, default=OUT)
    own = flags.parse_args(args)
    results, where = measure(own.ranks, own.rounds), surroundings()
    own.out.mkdir(parents=True, exist_ok=True)
    (own.out / "results.json").write_text(json.dumps({**results, **where}, indent=1) + "\n")
    text = report(results, where)
    (own.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
