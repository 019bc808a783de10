"""Do LET's diagnostics notice a bad teacher before the run is over?

    python recipes/notice_bad_teacher.py [--seeds 3]

The first 120 steps of the lab's LET, lambda kept at its first value, under each teacher of
ablate_teacher and under none, as ``python -m let_titan.probe`` trains them (15 runs, a minute each
on one core, in outputs/lab/notice). What is there already is kept. Writes
recipes/results/notice_bad_teacher/.
"""

import argparse
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ablate_teacher import RECIPE as TEACHERS
from bad_teacher_look.chart import draw
from bad_teacher_look.figures import figures_of
from bad_teacher_look.text import as_markdown
from lab.launch import flags
from lab.runs import Place, check_unchanged

from let_titan.config import LetConfigManager
from let_titan.probe.trials import BASELINE, Train, Trial, arguments, in_processes, run_trial
from let_titan.runs import read_summary

HYPOTHESIS = (
    "They do not. A student can come as near to a random teacher's states, which still tell one "
    "token from another, so the cosine is no lower; the two gradients are at right angles under "
    "every teacher; and auto stop ends none earlier. (ablate_teacher: what these teachers do to "
    "the whole run's loss is within what seeds do.)"
)
METRIC = (
    "A figure notices a teacher if its difference to the good teacher's, seed for seed, is below "
    "zero with its 95 % interval (paired t)."
)
STEPS = 120
"""LET's s_stop in the lab."""


def trained(place: Place, keys: Mapping[str, str], block: int, train: Train, folder: Path) -> Trial:
    """Returns one short run; trains it where it is not there whole."""
    done = folder / "trial.json"
    whole = ["--job.config_file", str(place.root / place.config), *flags(keys)]
    config = LetConfigManager().parse_args(whole)
    wanted = [*whole, *arguments(config, STEPS, block, folder)]
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)  # what a kill has left
        folder.parent.mkdir(parents=True, exist_ok=True)
        trial = run_trial(train, wanted, STEPS, block, folder)
        done.write_text(json.dumps([trial.loss, trial.looks]))
    check_unchanged(folder, LetConfigManager().parse_args(wanted))
    loss, looks = json.loads(done.read_text())
    return Trial(folder.name, block, loss, [(step, look) for step, look in looks])


def main(
    args: list[str] | None = None, place: Place | None = None, train: Train | None = None
) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the initial weights (3)")
    options = parser.parse_args(args)
    place, train = place or Place(), train or in_processes(1)
    os.chdir(place.root)  # the recipes' keys name their files from here
    seeds = range(options.seeds)
    runs = place.lab / "notice"
    trials: dict[str, list[Trial]] = {}
    for seed in seeds:
        for teacher, keys in {BASELINE: TEACHERS.arms["good"], **TEACHERS.arms}.items():
            block = 0 if teacher == BASELINE else int(keys["let.k"])
            folder = runs / f"{teacher.replace(' ', '_')}-seed{seed}"
            trial = trained(place, {**keys, "debug.seed": str(seed)}, block, train, folder)
            trials.setdefault(teacher, []).append(trial)
            print(f"{teacher}, seed {seed}: {trial.loss:.4f} at step {STEPS}", flush=True)
    baselines = trials.pop(BASELINE)
    summary = read_summary(runs / "good-seed0" / "summary.json")
    let = summary["config"]["let"]
    results = {
        "hypothesis": HYPOTHESIS,
        "metric": METRIC,
        "steps": STEPS,
        "seeds": list(seeds),
        "block": let["k"],
        "lambda_0": let["lambda_0"],
        "figures": figures_of(trials, baselines, let["auto_stop_cosine"], let["auto_stop_gain"]),
        "looks": {name: [trial.looks for trial in found] for name, found in trials.items()},
        **{key: summary[key] for key in ("versions", "hardware")},
    }
    folder = place.results / "notice_bad_teacher"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(trials, folder / "looks.png")
    (folder / "report.md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()
