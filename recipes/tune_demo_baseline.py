"""Tunes the demo's *baseline*: initialisation and learning rate, before LET is compared with it.

    python recipes/tune_demo_baseline.py

Question: which init_scheme and lr give train_configs/demo_baseline.toml its lowest final
validation loss? Arms: 2 x 3, one seed (the choice is for a demo, not a claim). The winner's
values stand in both demo configs. Finished arms are kept: the program goes on where it stopped.
Writes recipes/results/demo_baseline/{results.json,report.md}.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from lab.launch import train
from lab.runs import is_trained

from let_titan.runs import Run

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "train_configs/demo_baseline.toml"
RUNS = Path("outputs/tune_demo_baseline")
RESULTS = Path("recipes/results/demo_baseline")
SCHEMES = ("torchtitan", "llama")
CAVEAT = (
    "The llama scheme differs in the embedding (std 0.02 for 1), in the output matrix (0.02 for "
    "0.0625) and in output projections that do not shrink with depth. This is one short run an "
    "arm of a small model on a small corpus: a choice for the demo, not a finding."
)
LEARNING_RATES = ("1e-3", "3e-3", "6e-3")


def train_arm(scheme: str, lr: str) -> Run:
    """Trains one arm, unless it has been trained already."""
    folder = RUNS / f"{scheme}-{lr}"
    keys = {
        "model.init_scheme": scheme,
        "optimizer.lr": lr,
        "validation.freq": "54",
        "checkpoint.enable": "false",
    }
    if not is_trained(ROOT, CONFIG, keys, ROOT / folder):
        train(ROOT, CONFIG, {**keys, "job.dump_folder": str(folder)})
    return Run.load(ROOT / folder)


def as_result(scheme: str, lr: str, run: Run) -> dict[str, Any]:
    return {
        "init_scheme": scheme,
        "lr": float(lr),
        "val_loss": {line["step"]: line["val_loss"] for line in run.validation},
        "tokens": run.train[-1]["tokens"],
        "seed": run.summary["config"]["debug"]["seed"],
    }


def as_markdown(results: list[dict[str, Any]], surroundings: dict[str, Any]) -> str:
    """Renders the arms as a table, best final loss first."""
    ranked = sorted(results, key=lambda result: list(result["val_loss"].values())[-1])
    steps = list(ranked[0]["val_loss"])
    rows = [
        f"| {r['init_scheme']} | {r['lr']:g} | "
        + " | ".join(f"{r['val_loss'][step]:.3f}" for step in steps)
        + " |"
        for r in ranked
    ]
    best = ranked[0]
    return "\n".join(
        [
            "# The demo's baseline, tuned",
            "",
            f"Validation loss by step of `{CONFIG}`, {ranked[0]['tokens']:,} tokens an arm, seed "
            f'{best["seed"]} alone. Best: `init_scheme = "{best["init_scheme"]}"`, '
            f"`lr = {best['lr']:g}`.",
            "",
            "| init_scheme | lr | " + " | ".join(f"step {step}" for step in steps) + " |",
            "|---|---|" + "---|" * len(steps),
            *rows,
            "",
            CAVEAT,
            "",
            "{cpu}, {cpu_threads} threads; ".format(**surroundings["hardware"])
            + "torch {torch}, torchtitan {torchtitan}.".format(**surroundings["versions"]),
            "",
        ]
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.parse_args()
    runs = {arm: train_arm(*arm) for arm in itertools.product(SCHEMES, LEARNING_RATES)}
    results = [as_result(scheme, lr, run) for (scheme, lr), run in runs.items()]
    summary = next(iter(runs.values())).summary
    surroundings = {key: summary[key] for key in ("versions", "hardware")}
    folder = ROOT / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**surroundings, "arms": results}, indent=2)
    (folder / "results.json").write_text(text + "\n")
    (folder / "report.md").write_text(as_markdown(results, surroundings))


if __name__ == "__main__":
    main()
