"""Does every shipped config fit its GPUs: 8 of them and 32, or those that its layout names?

    python recipes/preflight_all.py [--jobs 2] [--only let_70b let_70b_baseline]

Runs preflight on each file of train_configs/ as a user does, one process a run, and writes what
it said to recipes/results/preflight/ (results.json, report.md).
"""

import argparse
import json
import math
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from let_titan.preflight.units import gib
from let_titan.run.summary import surroundings

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "preflight"
WORLDS = (8, 32)
DEGREES = ("data_parallel_replicate", "data_parallel_shard", "tensor_parallel", "pipeline_parallel")
PARTS = ("weights", "gradients", "adam", "buffers", "activations", "teacher")


def worlds_of(config: Path) -> tuple[int, ...]:
    """Returns the numbers of GPUs on which a config runs as it stands, of those we care for."""
    parallelism = tomllib.loads(config.read_text()).get("parallelism", {})
    degrees = [parallelism.get(f"{name}_degree", 1) for name in DEGREES]
    shards_over_all = parallelism.get("data_parallel_shard_degree", -1) < 0
    return WORLDS if shards_over_all else (math.prod(degrees),)


def preflight(config: Path, world_size: int) -> dict[str, Any]:
    """Returns what preflight said of the run.

    Raises:
        CalledProcessError: it found mistakes.
    """
    gpu = "h100" if "float8" in config.stem else "a100"
    file = str(config.relative_to(ROOT))
    command = [sys.executable, "-m", "let_titan.preflight", "--job.config_file", file]
    command += ["--world-size", str(world_size), "--gpu", gpu, "--json"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {"config": config.stem, **summarise(told.stdout)}


def summarise(told: str) -> dict[str, Any]:
    """Keeps the figures of one run: this machine's disk and missing files are not of interest."""
    report = json.loads(told)
    price = report["price"]
    return {
        **report["run"],
        "mistakes": report["mistakes"],
        "batch": price["batch"],
        "memory_bytes_per_gpu": price["memory_bytes_per_gpu"],
        "overhead_over_run": price["cost"]["overhead_over_run"],
        "gpu_hours": price["cost"]["gpu_hours"],
    }


def write(runs: list[dict[str, Any]], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": surroundings(), "runs": runs}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "report.md").write_text("\n".join(report(runs)) + "\n")


def report(runs: list[dict[str, Any]]) -> list[str]:
    fit = sum(r["memory_bytes_per_gpu"]["total"] <= r["memory_bytes_per_gpu"]["of"] for r in runs)
    fullest = max(runs, key=lambda r: r["memory_bytes_per_gpu"]["total"])
    return [
        "# Every shipped config, priced on 8 and on 32 GPUs, or on those that its layout names",
        "",
        f"{fit} of {len(runs)} runs fit 80 GB; the fullest is {fullest['config']} on "
        f"{fullest['world_size']} with {gib(fullest['memory_bytes_per_gpu']['total'])}.",
        "",
        "All of it is predicted, nothing measured on a GPU: activations are a forward and backward",
        "of tensors without storage, hours are FLOPs at an assumed utilisation. Memory is per GPU.",
        "Made by `python recipes/preflight_all.py`.",
        "",
        f"| config | GPUs | accumulation | tokens a step | {' | '.join(PARTS)} | total "
        "| GPU-hours |",
        "|---|" + "--:|" * (len(PARTS) + 5),
        *(row(run) for run in runs),
    ]


def row(run: dict[str, Any]) -> str:
    memory, batch = run["memory_bytes_per_gpu"], run["batch"]
    cells = [
        run["config"],
        f"{run['world_size']} {run['gpu'].split()[0]}",
        f"{batch['accumulation']}",
        f"{batch['tokens_per_step']:,}",
        *(gib(memory[part]) for part in (*PARTS, "total")),
        f"{run['gpu_hours']:,.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    flags.add_argument("--only", nargs="+", help="price these anew, and keep the others' figures")
    flags.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    own = flags.parse_args(args)
    configs = sorted((ROOT / "train_configs").glob("*.toml"))
    kept = []
    if own.only:
        if unknown := set(own.only) - {config.stem for config in configs}:
            flags.error(f"--only {' '.join(sorted(unknown))}: train_configs/ has no such file.")
        kept = json.loads((own.out / "results.json").read_text())["runs"]
        kept = [run for run in kept if run["config"] not in own.only]
        configs = [config for config in configs if config.stem in own.only]
    wanted = [(config, n) for config in configs for n in worlds_of(config)]
    with ThreadPoolExecutor(own.jobs) as pool:
        runs = [*kept, *pool.map(preflight, *zip(*wanted, strict=True))]
    runs.sort(key=lambda run: (run["config"], run["world_size"]))
    write(runs, own.out)


if __name__ == "__main__":
    main()
