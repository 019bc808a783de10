"""Do the probe's proposals agree with whole runs?

    python recipes/check_probe.py [--report]

Runs ``python -m let_titan.probe`` once in the lab's setting (6 runs of 120 steps, about 12 minutes
of one core, in outputs/lab/probe), then holds what it proposes against the whole runs of ablate_k,
ablate_lambda and ablate_stop that are there. ``--report`` holds the probe that was kept against
what whole runs there are now. Writes recipes/results/check_probe/.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from ablate_k import RECIPE as K
from ablate_lambda import RECIPE as LAMBDA
from ablate_stop import RECIPE as STOP
from compare_methods import RECIPE as METHODS
from lab.arms import LET
from lab.launch import flags
from lab.recipe import Recipe
from lab.runs import Place, key_of
from probe_check.figure import draw
from probe_check.text import as_markdown
from probe_check.verdict import Verdict, at_least, judge, nearest, rank_correlations
from probe_check.whole_runs import ends_of, noise_of

from let_titan.runs import Run, read_summary

HYPOTHESIS = (
    "k: the run of the proposed block ends no higher than the best block's, by more than seeds do. "
    "lambda_0: so does the proposed weight's. s_stop: nothing ends the alignment within 120 steps, "
    "and a teacher that stays so long is no worse than one that leaves earlier. The probe's own "
    "losses at step 120 say nothing of the whole runs' ends."
)
METRIC = (
    "A rule is wrong where what it proposes (the nearest arm) ends above the best arm by more than "
    "seeds make of two equal runs (95 %). It holds where it is not wrong and the best and the "
    "worst arm lie farther apart than those of so many equal arms do (95 %, Tukey's range). Where "
    "they do not, whole runs do not care, and nothing is decided."
)
BLOCKS, STEPS = "1,2,3,4,6", 120
"""Those of ablate_k; LET's s_stop in the lab."""


def probe_arguments(place: Place) -> list[str]:
    """Returns the probe's command line: LET as the lab has it, seed 0."""
    return [
        *("--steps", str(STEPS), "--blocks", BLOCKS, "--out", str(place.lab / "probe")),
        *("--job.config_file", place.config, *flags({**LET, "debug.seed": "0"})),
    ]


def probed(place: Place) -> dict[str, Any]:
    """Returns what the probe wrote; runs it where it has not been run."""
    kept = place.results / "check_probe" / "probe.json"
    if not kept.exists():
        command = [sys.executable, "-m", "let_titan.probe", *probe_arguments(place)]
        subprocess.run(command, cwd=place.root, check=True)
        report = json.loads((place.lab / "probe" / "probe.json").read_text())
        summary = read_summary(place.lab / "probe" / "baseline" / "summary.json")
        facts = {key: summary[key] for key in ("versions", "hardware")}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({**report, **facts}, indent=1) + "\n")
    report = json.loads(kept.read_text())
    assert isinstance(report, dict)
    return report


def verdicts(place: Place, report: dict[str, Any], total: int) -> tuple[list[Verdict], Any]:
    """Judges each rule whose whole runs are there; returns the noise, too."""
    noise = noise_of([METHODS, LAMBDA], place)
    proposal = report["proposal"]
    stop = proposal["s_stop"]
    judged = []
    for setting, recipe in (("k", K), ("lambda_0", LAMBDA), ("s_stop", STOP)):
        ends = ends_of(recipe, place)
        if not ends.seeds:
            continue
        if setting != "s_stop":
            value = proposal[setting]
            stands_for = nearest(value, ends.differences)
        elif stop is not None:
            value = stop / total
            stands_for = nearest(value, ends.differences)
        else:
            value, stands_for = None, at_least(report["steps"] / total, ends.differences)
        judged.append(judge(setting, value, stands_for, ends, noise))
    return judged, noise


def results_of(place: Place) -> dict[str, Any]:
    """Returns what results.json holds."""
    report = probed(place)
    whole = Run.load(place.results / "lab" / key_of(place, METHODS.settings()[0][2]))
    judged, noise = verdicts(place, report, whole.fact("config.training.steps"))
    recipes: list[tuple[str, Recipe]] = [("k", K), ("lambda_0", LAMBDA), ("s_stop", STOP)]
    return {
        "hypothesis": HYPOTHESIS,
        "metric": METRIC,
        "seed": 0,
        "block": int(LET["let.k"]),
        "probe": report,
        "noise": asdict(noise),
        "verdicts": [asdict(verdict) for verdict in judged],
        "ends": {name: asdict(ends_of(recipe, place)) for name, recipe in recipes},
        "rank_correlations": rank_correlations(report["evidence"], ends_of(K, place)),
    }


def main(args: list[str] | None = None, place: Place | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="of the probe that was kept")
    options = parser.parse_args(args)
    place = place or Place()
    folder = place.results / "check_probe"
    if options.report and not (folder / "probe.json").exists():
        parser.error(f"{folder / 'probe.json'} is not there yet: run without --report first.")
    results = results_of(place)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, folder / "probe.png")
    (folder / "report.md").write_text(as_markdown(results))
    for verdict in results["verdicts"]:
        print(f"{verdict['setting']}: {verdict['outcome']}")


if __name__ == "__main__":
    main()
