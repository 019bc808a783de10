"""Preflight beside what torchtitan's authors measured: how far are its sums to be trusted?

    python recipes/preflight_published.py [--jobs 2]

torchtitan 0.2.2's benchmarks/llama3_h100_202412_torchtitan.md gives tokens/s and the peak of
reserved memory of Llama 3.1 runs on H100 with 96 GB. The same layouts go through preflight as a
user would give them; what it says is written to recipes/results/preflight_published/
(results.json, report.md).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from let_titan.run.summary import surroundings

OUT = Path(__file__).parent / "results" / "preflight_published"
COMPILED = ["--compile.enable"]
FLOAT8 = [*COMPILED, "--model.converters", "quantize.linear.float8"]
ASYNC = [*FLOAT8, "--parallelism.enable_async_tensor_parallel"]
HOW = {
    (): "eager",
    tuple(COMPILED): "compiled",
    tuple(FLOAT8): "float8",
    tuple(ASYNC): "float8, async TP",
}
SAC, FULL = "selective", "full"
TP_PP = {"tensor": 8, "pipeline": 8}


@dataclass(frozen=True)
class Published:
    """A run of the page.

    Attributes:
        table: of the page.
        flavor: which Llama 3.1.
        world_size: GPUs.
        layout: parallel degrees by name; the rest shards.
        batch, seq_len: sequences of a data-parallel rank, and their tokens.
        checkpointing: the mode; "selective" is by op, as in torchtitan's config of that time.
        flags: compile, float8 and asynchronous tensor parallelism.
        tokens_per_s: a GPU.
        reserved_gib: the largest of all ranks.
        more: further keys of [parallelism].
    """

    table: int
    flavor: str
    world_size: int
    layout: dict[str, int]
    batch: int
    seq_len: int
    checkpointing: str
    flags: list[str]
    tokens_per_s: int
    reserved_gib: float
    more: dict[str, str | int] = field(default_factory=dict)


def pipeline(schedule: str, batch: int) -> dict[str, str | int]:
    """Returns the keys of a pipeline of 8 with 8 microbatches, that time's default."""
    return {
        "pipeline_parallel_schedule": schedule,
        "pipeline_parallel_microbatch_size": batch // 8,
    }


RUNS = [
    Published(1, "8B", 8, {}, 2, 8192, SAC, [], 5762, 82.4),
    Published(1, "8B", 8, {}, 2, 8192, SAC, COMPILED, 6667, 77.0),
    Published(1, "8B", 8, {}, 2, 8192, SAC, FLOAT8, 8532, 76.8),
    Published(2, "8B", 8, {}, 1, 32768, FULL, FLOAT8, 3890, 83.9),
    Published(2, "8B", 8, {"context": 2}, 1, 65536, FULL, FLOAT8, 2540, 84.2),
    Published(2, "8B", 8, {"context": 4}, 1, 131072, FULL, FLOAT8, 1071, 84.0),
    Published(2, "8B", 8, {"context": 8}, 1, 262144, FULL, FLOAT8, 548, 84.5),
    Published(3, "8B", 128, {}, 2, 8192, SAC, [], 5605, 67.0),
    Published(3, "8B", 128, {}, 2, 8192, SAC, COMPILED, 6514, 62.0),
    Published(3, "8B", 128, {}, 2, 8192, SAC, FLOAT8, 8380, 61.8),
    Published(4, "70B", 256, {"tensor": 8}, 16, 8192, FULL, FLOAT8, 829, 71.9),
    Published(4, "70B", 256, {"tensor": 8}, 16, 8192, FULL, ASYNC, 876, 67.6),
    Published(5, "405B", 512, TP_PP, 32, 8192, FULL, ASYNC, 100, 82.5, pipeline("1F1B", 32)),
    Published(
        5, "405B", 512, TP_PP, 32, 8192, FULL, ASYNC, 128, 72.7, pipeline("Interleaved1F1B", 32)
    ),
    *(
        Published(6, "405B", 512, layout, 8, seq_len, FULL, ASYNC, speed, gib, pipeline("1F1B", 8))
        for layout, seq_len, speed, gib in (
            (TP_PP, 32768, 76, 75.3),
            (TP_PP | {"context": 2}, 65536, 47, 75.9),
            (TP_PP | {"context": 4}, 131072, 31, 77.1),
            (TP_PP | {"context": 8}, 262144, 16, 84.9),
        )
    ),
]
"""All of the page."""


def config_of(run: Published) -> str:
    """Returns the run's TOML."""
    degrees = {f"{name}_parallel_degree": degree for name, degree in run.layout.items()}
    sections: dict[str, dict[str, Any]] = {
        "model": {
            "name": "let_llama",
            "flavor": run.flavor,
            "rope_theta": 500000.0,
            "hf_assets_path": "assets/hf/Llama-3.1-8B",
        },
        "training": {
            "dataset": "c4",
            "local_batch_size": run.batch,
            "seq_len": run.seq_len,
            "steps": 1000,
        },
        "parallelism": {**degrees, **run.more},
        "activation_checkpoint": {"mode": run.checkpointing, "selective_ac_option": "op"},
    }
    lines = [
        line
        for name, keys in sections.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
    ]
    return "\n".join(lines) + "\n"


def preflight(run: Published) -> dict[str, Any]:
    """Returns what preflight says of the run.

    Raises:
        CalledProcessError: it found mistakes.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config_of(run))
        file.flush()
        command = [sys.executable, "-m", "let_titan.preflight", "--job.config_file", file.name]
        command += ["--world-size", str(run.world_size), "--gpu", "h100", "--json", *run.flags]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
    price = json.loads(told.stdout)["price"]
    memory, cost = price["memory_bytes_per_gpu"], price["cost"]
    return {
        **asdict(run),
        "predicted_gib": memory["total"] / 2**30,
        "activations_gib": memory["activations"] / 2**30,
        "reserved_over_predicted": run.reserved_gib * 2**30 / memory["total"],
        "predicted_tokens_per_s": cost["tokens_per_s_after"] / run.world_size,
        "mfu_assumed": cost["mfu_assumed"],
    }


def row(run: dict[str, Any]) -> str:
    """Returns a line of the report."""
    layout = {"shard": "rest", **run["layout"]}
    schedule = run["more"].get("pipeline_parallel_schedule")
    how = HOW[tuple(run["flags"])]
    cells = [
        str(run["table"]),
        f"{run['flavor']}, {how}" + (f", {schedule}" if schedule else ""),
        f"{run['world_size']}: " + " x ".join(f"{name} {size}" for name, size in layout.items()),
        f"{run['batch']} x {run['seq_len']:,}, {run['checkpointing']}",
        f"{run['reserved_gib']:.1f}",
        f"{run['predicted_gib']:.1f}",
        f"{run['reserved_over_predicted']:.2f}",
        f"{run['tokens_per_s']:,}",
        f"{run['predicted_tokens_per_s']:,.0f}",
        f"{run['tokens_per_s'] / run['predicted_tokens_per_s']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def report(runs: list[dict[str, Any]]) -> list[str]:
    ratios = [run["reserved_over_predicted"] for run in runs]
    speeds = [run["tokens_per_s"] / run["predicted_tokens_per_s"] for run in runs]
    return [
        "# Preflight beside torchtitan's published runs",
        "",
        f"The reserved peak is {min(ratios):.2f} to {max(ratios):.2f} times what preflight",
        f"predicts in all; tokens/s are {min(speeds):.2f} to {max(speeds):.2f} times the "
        "predicted.",
        "",
        "Published: torchtitan's benchmarks of 2024-12 (Llama 3.1 on H100 with 96 GB), measured by",
        "its authors with the torch of that time; reserved memory counts fragmentation and, in all",
        "but the eager runs, other kernels than those that preflight reckons with. Predicted: by",
        "this version, without a GPU. tokens/s are at an assumed MFU, which table 1's compiled "
        "runs",
        "gave, so that their ratio is 1; it knows neither that full checkpointing repeats a",
        "forward, nor that a ring is waited for. Pipelines are taken to have had 8 microbatches,",
        "that time's default. Made by `python recipes/preflight_published.py`.",
        "",
        "| table | run | GPUs | batch a rank, checkpointing | reserved GiB | predicted | ratio "
        "| tokens/s a GPU | predicted | ratio |",
        "|--:|---|---|---|" + "--:|" * 6,
        *map(row, runs),
    ]


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    flags.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    own = flags.parse_args(args)
    with ThreadPoolExecutor(own.jobs) as pool:
        runs = list(pool.map(preflight, RUNS))
    own.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": surroundings(), "runs": runs}
    (own.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (own.out / "report.md").write_text("\n".join(report(runs)) + "\n")


if __name__ == "__main__":
    main()
