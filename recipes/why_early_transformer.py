"""Why an early layer, why early steps, in a Transformer? Lanczos and Hutchinson on the demo's.

    python recipes/why_early_transformer.py [--report]

Trains the demo's student under SmolLM2-135M and its twin without (a third of the demo's steps, the
teacher until half of them), and measures checkpoints before and after the teacher left;
theory/students.py says what theory lets expect. About 7 minutes of one core a seed. Runs go to
outputs/theory (9 GB); writes recipes/results/theory/transformer.*
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lab.launch import train
from lab.runs import is_trained
from theory.students import angle, curvature, load_student, windows_of
from theory.transformer_text import write_results

from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.export.source import find_source
from let_titan.teacher import load_teacher, prepare_teacher

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "outputs" / "theory"
RESULTS = ROOT / "recipes" / "results" / "theory"
ARMS = {"baseline": "train_configs/demo_baseline.toml", "LET": "train_configs/demo.toml"}
SEEDS = (0, 1, 2)
S_STOP = 36
KEYS = {
    "training.steps": str(2 * S_STOP),
    "lr_scheduler.warmup_steps": "7",
    "checkpoint.interval": str(S_STOP // 2),
    "checkpoint.keep_latest_k": "0",
    "validation.freq": str(S_STOP),
    "metrics.enable_tensorboard": "false",
    "metrics.enable_wandb": "false",
}
TEACHER, BLOCK = "assets/teachers/smollm2-135m", 2  # as in demo.toml
PROBES = 16
CURVATURE_WINDOWS = 1
ANGLE_WINDOWS = 8


def measured(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Returns the figures of a run's checkpoints, which are kept beside them."""
    kept = folder / "curvature.json"
    if not kept.exists():
        ids = windows_of(find_source(folder), ANGLE_WINDOWS)
        teacher = load_teacher(
            prepare_teacher(TEACHER),
            ["last"],
            dtype=torch.float32,
            device=ids.device,
            seq_len=ids.shape[1] - 1,
        )
        rows = []
        for step, checkpoint in whole_checkpoints(folder / "checkpoint").items():
            model = load_student(checkpoint)
            rows.append(
                {
                    "step": step,
                    **curvature(model, ids[:CURVATURE_WINDOWS], PROBES, seed),
                    **angle(model, teacher, BLOCK, ids),
                }
            )
        kept.write_text(json.dumps(rows, indent=1) + "\n")
    rows = json.loads(kept.read_text())
    assert isinstance(rows, list)
    return rows


def run(arm: str, seed: int) -> list[dict[str, Any]]:
    """Trains and measures an arm, or what is left of it."""
    folder = RUNS / f"{arm}-seed{seed}"
    let = {"let.s_stop": str(S_STOP)} if arm == "LET" else {}
    keys = {**KEYS, **let, "debug.seed": str(seed)}
    if not is_trained(ROOT, ARMS[arm], keys, folder):
        train(ROOT, ARMS[arm], {**keys, "job.dump_folder": str(folder.relative_to(ROOT))})
    return [{"arm": arm, "seed": seed, **row} for row in measured(folder, seed)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="of what is measured; train nothing")
    options = parser.parse_args()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    rows = []
    for seed in SEEDS:
        done = [(RUNS / f"{arm}-seed{seed}" / "curvature.json").exists() for arm in ARMS]
        if options.report and not all(done):
            continue
        rows += [row for arm in ARMS for row in run(arm, seed)]
        write_results(rows, S_STOP, find_source(RUNS / f"LET-seed{seed}").summary, RESULTS)
    dist.destroy_process_group()
    if not rows:
        parser.error("not one seed has both its arms measured yet: run without --report first.")


if __name__ == "__main__":
    main()
