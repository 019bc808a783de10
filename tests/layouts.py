"""The layouts in which LET is held against one process, and their table in docs/layouts.md."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "layouts.md"
BEGIN, END = "<!-- the table -->", "<!-- end of the table -->"
HEAD = "| layout | processes | k | gradients within |\n|---|---|---|---|\n"

FSDP = {"parallelism__data_parallel_shard_degree": -1}
HSDP = {
    "parallelism__data_parallel_shard_degree": 2,
    "parallelism__data_parallel_replicate_degree": 2,
}
DDP, DDP_4 = ({"parallelism__data_parallel_replicate_degree": n} for n in (2, 4))
MICRO_1, MICRO_2, MICRO_8 = ({"training__local_batch_size": size} for size in (1, 2, 8))
FULL_AC = {"activation_checkpoint__mode": "full"}
OP_AC = {
    "activation_checkpoint__mode": "selective",
    "activation_checkpoint__selective_ac_option": "op",
}
TP = {"parallelism__tensor_parallel_degree": 2}
WHOLE_LOGITS = {"parallelism__disable_loss_parallel": True}
CP = {"parallelism__context_parallel_degree": 2}
PP = {"parallelism__pipeline_parallel_degree": 2}
INTERLEAVED = {**PP, "parallelism__pipeline_parallel_schedule": "Interleaved1F1B"}
GPIPE = {**PP, "parallelism__pipeline_parallel_schedule": "GPipe"}
ZERO_BUBBLE = {**PP, "parallelism__pipeline_parallel_schedule": "InterleavedZeroBubble"}
ZBV = {**PP, "parallelism__pipeline_parallel_schedule": "ZBVZeroBubble"}
LOOPED = {**PP, "parallelism__pipeline_parallel_schedule": "LoopedBFS"}
PAIRS = {"parallelism__pipeline_parallel_microbatch_size": 2}
SHARD, REPLICATE = {"teacher__placement": "shard"}, {"teacher__placement": "replicate"}
NODE = {"teacher__placement": "node"}
READ_BY_ALL = {"teacher__pipeline": "all"}
COMPILE = {"compile__enable": True}
GRAPHS = {**COMPILE, "compile__backend": "aot_eager"}
"""All of compile but its kernels, which take a CPU a minute."""


@dataclass(frozen=True)
class Case:
    """A layout of so many processes.

    Attributes:
        keys: its changes to the config, as ``Lab.config`` takes them.
        blocks: values of let.k, each a run. The 4 blocks are split 2 + 2 (1F1B), or 1 + 2 + 1 + 0
            over stages of two ranks (Interleaved1F1B): 2 and 4 are on the first stage or a later
            one, on rank 0 or on rank 1.
    """

    ranks: int
    keys: dict[str, Any]
    blocks: tuple[int, ...] = (2,)


NODE_SIZE = 2
"""Processes that take themselves for one node's."""


def pipeline(ranks: int, keys: dict[str, Any]) -> Case:
    return Case(ranks, keys, (2, 4))


CASES = {
    "FSDP2, teacher sharded": Case(2, {**FSDP, **SHARD}),
    "FSDP2, teacher replicated": Case(2, {**FSDP, **REPLICATE}),
    "FSDP2, accumulation": Case(2, {**FSDP, **SHARD, **MICRO_2}),
    "FSDP2, full AC": Case(2, {**FSDP, **FULL_AC}),
    "FSDP2, op AC, compile": Case(2, {**FSDP, **SHARD, **OP_AC, **COMPILE}),
    "DDP": Case(2, DDP),
    "DDP, compile": Case(2, {**DDP, **GRAPHS}),
    "DDP, accumulation, full AC": Case(2, {**DDP, **MICRO_2, **FULL_AC}),
    "TP": Case(2, {**TP, **MICRO_8}),
    "TP, accumulation, op AC": Case(2, {**TP, **MICRO_1, **OP_AC}),
    "TP, compile": Case(2, {**TP, **MICRO_8, **GRAPHS}),
    "TP, whole logits, full AC": Case(2, {**TP, **WHOLE_LOGITS, **FULL_AC}),
    "CP": Case(2, {**CP, **MICRO_8, **SHARD}),
    "CP, accumulation, full AC": Case(2, {**CP, **MICRO_2, **FULL_AC}),
    "CP, compile": Case(2, {**CP, **MICRO_8, **GRAPHS}),
    "PP 1F1B": pipeline(2, {**PP, **MICRO_8}),
    "PP 1F1B, accumulation": pipeline(2, {**PP, **PAIRS}),
    "PP 1F1B, full AC": pipeline(2, {**PP, **FULL_AC, **MICRO_8}),
    "PP 1F1B, op AC, compile": Case(2, {**PP, **OP_AC, **GRAPHS, **MICRO_8}, (4,)),
    "PP 1F1B, teacher's rows over the pipeline": pipeline(2, {**PP, **READ_BY_ALL, **MICRO_8}),
    "PP Interleaved1F1B": pipeline(2, {**INTERLEAVED, **MICRO_8}),
    "PP Interleaved1F1B, accumulation": pipeline(2, {**INTERLEAVED}),
    "PP GPipe": pipeline(2, {**GPIPE, **MICRO_8}),
    "PP LoopedBFS": pipeline(2, {**LOOPED, **MICRO_8}),
    "PP InterleavedZeroBubble": pipeline(2, {**ZERO_BUBBLE, **MICRO_8}),
    "PP InterleavedZeroBubble, accumulation, full AC": Case(2, {**ZERO_BUBBLE, **FULL_AC}),
    "PP ZBVZeroBubble": pipeline(2, {**ZBV, **MICRO_8}),
    "FSDP2 of 4, accumulation": Case(4, {**FSDP, **SHARD, **MICRO_2}),
    "FSDP2 over two nodes, teacher within each, accumulation": Case(4, {**FSDP, **NODE, **MICRO_1}),
    "DDP over two nodes, teacher within each": Case(4, {**DDP_4, **NODE, **MICRO_2}),
    "HSDP 2 x 2": Case(4, {**HSDP, **SHARD, **MICRO_2}),
    "HSDP 2 x 2, accumulation": Case(4, {**HSDP, **MICRO_1}),
    "HSDP 2 x 2, op AC, compile": Case(4, {**HSDP, **OP_AC, **GRAPHS, **MICRO_2}),
    "TP of 4": Case(4, {"parallelism__tensor_parallel_degree": 4}),
    "FSDP2 x TP": Case(4, {**FSDP, **TP, **SHARD}),
    "FSDP2 x TP, teacher over the TP ranks of each node": Case(4, {**FSDP, **TP, **NODE}),
    "FSDP2 x TP, whole logits, accumulation": Case(4, {**FSDP, **TP, **WHOLE_LOGITS, **MICRO_2}),
    "FSDP2 x TP, compile": Case(4, {**FSDP, **TP, **GRAPHS}),
    "FSDP2 x CP": Case(4, {**FSDP, **CP, **SHARD}),
    "replicas x CP (HSDP)": Case(4, {**DDP, "parallelism__data_parallel_shard_degree": 1, **CP}),
    "CP x TP": Case(4, {**CP, **TP, **MICRO_8}),
    "PP x FSDP2": pipeline(4, {**PP, **FSDP, **SHARD}),
    "PP x FSDP2, teacher within its stage's node": pipeline(4, {**PP, **FSDP, **NODE}),
    "PP Interleaved1F1B x FSDP2": pipeline(4, {**INTERLEAVED, **FSDP}),
    "PP InterleavedZeroBubble x FSDP2": Case(4, {**ZERO_BUBBLE, **FSDP}),
    "PP x FSDP2, teacher's rows over the pipeline, accumulation": pipeline(
        4, {**PP, **FSDP, **SHARD, **READ_BY_ALL, **MICRO_2}
    ),
    "PP x TP": pipeline(4, {**PP, **TP, **MICRO_8}),
    "PP x TP, teacher's rows over both": pipeline(4, {**PP, **TP, **READ_BY_ALL, **MICRO_8}),
    "PP x FSDP2, op AC, compile": Case(4, {**PP, **FSDP, **OP_AC, **GRAPHS}, (4,)),
    "PP x TP, compile": Case(4, {**PP, **TP, **GRAPHS, **MICRO_8}, (4,)),
    "PP x CP": Case(4, {**PP, **CP, **MICRO_8}, (4,)),
    "PP x CP, teacher's rows over both": Case(4, {**PP, **CP, **READ_BY_ALL, **MICRO_8}, (4,)),
    "FSDP2 x TP x PP": pipeline(8, {**FSDP, **TP, **PP}),
    "HSDP 2 x 2 x TP": Case(8, {**HSDP, **TP, **MICRO_2}),
    "HSDP 2 x 2 x PP": Case(8, {**HSDP, **PP, **MICRO_2}, (4,)),
    "FSDP2 x CP x TP": Case(8, {**FSDP, **CP, **TP}),
}


def bound(error: float) -> float:
    """Returns what the page may promise of a measured error: rounding differs between machines."""
    return min(x for x in (1e-6, 2e-6, 5e-6, 1e-5, math.inf) if 1.5 * error <= x or x == math.inf)


def rows(bounds: dict[str, str]) -> str:
    """Returns the table; a layout that was not measured yet says so."""
    lines = [
        f"| {name} | {case.ranks} | {', '.join(map(str, case.blocks))} | "
        f"{bounds.get(name, 'not measured')} |\n"
        for name, case in CASES.items()
    ]
    return HEAD + "".join(lines)


def committed() -> str:
    """Returns the page's table."""
    return PAGE.read_text().partition(BEGIN + "\n")[2].partition(END)[0]


def promised() -> dict[str, str]:
    """Returns {layout: the bound the page gives}."""
    lines = committed().removeprefix(HEAD).splitlines()
    return {name: last for name, _, _, last in (line[2:-2].split(" | ") for line in lines)}


def write(errors: dict[str, float]) -> None:
    """Puts the bounds of measured errors into the page; the other rows stay.

    A bound only rises: another machine, whose kernels round otherwise, may have measured it.
    """
    bounds = promised()
    for name, error in errors.items():
        said = bounds.get(name, "not measured")
        before = 0.0 if said == "not measured" else float(said)
        bounds[name] = f"{max(before, bound(error)):.0e}"
    before, _, rest = PAGE.read_text().partition(BEGIN + "\n")
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{rows(bounds)}{END}{after}")
