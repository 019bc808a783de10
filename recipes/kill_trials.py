"""Kills a run at seeded moments, starts the same command again, and compares with a quiet run.

    python recipes/kill_trials.py --config CONFIG.toml --trials 100 --out recipes/results/durability

Each trial is a run of its own, on two gloo ranks of this machine. It is killed (SIGKILL, one rank
or all of them) at one of five points, and started again until it ends. It passes when
metrics.jsonl (times apart), the set of checkpoints and every value of the last one are those of
the run that nobody disturbed. The config should save often: interval 2 of 8 steps, say.
"""

import argparse
import gc
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the ranks are forks

from kills.left import contents, differences
from kills.plan import POINTS, Trial, plan_trial
from kills.ranks import launch, until_it_ends

from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.run.summary import surroundings


@dataclass
class Outcome:
    """What came of a trial. ``starts`` are the steps the launches began at."""

    trial: Trial
    hit: bool
    starts: list[int]
    differences: list[str]
    seconds: float


def run_trial(trial: Trial, args: list[str], folder: Path, quiet: Path) -> Outcome:
    """Runs one trial in ``folder``; a run that saves again starts from a copy of ``quiet``."""
    begin = time.monotonic()
    run, again = folder / "run", trial.point == "while saving again"
    args = [*args, "--job.dump_folder", str(run), "--checkpoint.async_mode", trial.async_mode]
    if again:
        shutil.copytree(quiet, run)
        steps = sorted(whole_checkpoints(run / "checkpoint"))
        args += ["--checkpoint.load_step", str(steps[len(steps) // 2 - 1])]
    hit = until_it_ends(args, folder / "log", trial)
    found, wanted = contents(run), contents(quiet)
    log = (folder / "log.0.log").read_text()
    starts = [int(step) for step in re.findall(r"Training starts at step (\d+)", log)]
    return Outcome(trial, hit, starts, differences(found, wanted), time.monotonic() - begin)


def run_trials(config: Path, trials: int, seed: int, scratch: Path) -> list[Outcome]:
    """Runs the quiet runs, then the trials, in ``scratch``."""
    gc.freeze()  # else every collection in a fork copies what the imports left
    base = ["--job.config_file", str(config)]
    quiet = {}
    for name, keep in (("keep all", "0"), ("keep 2", "2")):
        folder = scratch / name.replace(" ", "-")
        folder.mkdir(parents=True)
        args = [*base, "--checkpoint.keep_latest_k", keep]
        begin = time.monotonic()
        ended, _ = launch([*args, "--job.dump_folder", str(folder / "run")], folder / "log")
        if not ended:
            raise SystemExit(f"The quiet run failed: see {folder}.")
        quiet[name] = (args, folder / "run", time.monotonic() - begin)
    saves = len(whole_checkpoints(quiet["keep all"][1] / "checkpoint"))
    outcomes = []
    for number in range(seed, seed + trials):
        again = POINTS[number % len(POINTS)] == "while saving again"
        args, undisturbed, seconds = quiet["keep all" if again else "keep 2"]
        trial = plan_trial(number, seconds, saves)
        folder = scratch / f"trial-{number}"
        folder.mkdir()
        outcomes.append(run_trial(trial, args, folder, undisturbed))
        state = outcomes[-1]
        verdict = "differs: " + ", ".join(state.differences[:5]) if state.differences else "equal"
        print(f"{number:3} {trial.point:18} {trial.victim:9} {trial.async_mode:8} {verdict}")
        if not state.differences:
            shutil.rmtree(folder)
    gc.unfreeze()
    return outcomes


def report(outcomes: list[Outcome], on: dict[str, Any]) -> str:
    """Returns the Markdown of a set of trials; ``on`` is what ``surroundings`` said."""
    versions, hardware = on["versions"], on["hardware"]
    lines = [
        f"# {len(outcomes)} kills",
        "",
        f"Two gloo ranks on {hardware['cpu']} (shared), torch {versions['torch']}, torchtitan "
        f"{versions['torchtitan']}, commit {on['git_commit']}; seeds {outcomes[0].trial.seed} to "
        f"{outcomes[-1].trial.seed}. Program: `recipes/kill_trials.py`, on a config that",
        "`tests/test_kills.py` writes.",
        "",
        "| killed | trials | kill took place | ended bit-equal |",
        "|---|---|---|---|",
    ]
    for point in POINTS:
        mine = [outcome for outcome in outcomes if outcome.trial.point == point]
        equal = sum(not outcome.differences for outcome in mine)
        lines.append(f"| {point} | {len(mine)} | {sum(o.hit for o in mine)} | {equal} |")
    starts = Counter(start - 1 for outcome in outcomes for start in outcome.starts[1:])
    steps = ", ".join(f"{step} ({count})" for step, count in sorted(starts.items()))
    lines += ["", f"Steps the runs went on from (how often): {steps}.", ""]
    lines += ["A kill in a step is drawn from the clock, and may come after the run's end.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = run_trials(
            options.config.absolute(), options.trials, options.seed, Path(scratch)
        )
    options.out.mkdir(parents=True, exist_ok=True)
    on = surroundings()
    result = {**on, "trials": [asdict(outcome) for outcome in outcomes]}
    (options.out / "trials.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "trials.md").write_text(report(outcomes, on))
    print(report(outcomes, on))
    sys.exit(any(outcome.differences for outcome in outcomes))


if __name__ == "__main__":
    main()
