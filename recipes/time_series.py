"""LET beyond text: does a small TimesNet help a larger classifier of time series?

    bash scripts/series_env.sh                               # once: .venv-series, which has aeon
    .venv-series/bin/python recipes/time_series.py           # half an hour on one core; resumes
    python recipes/time_series.py --tiny --out FOLDER        # the path alone, on a made-up set

Writes recipes/results/time_series/: runs.jsonl (a line for each finished run, read again after a
stop), results.json, report.md and plots. docs/time-series.md says what came out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from series.data import SETS, load
from series.figures import draw_curves, draw_differences
from series.findings import find
from series.made_up import MADE_UP
from series.study import Model, Record, Store, Study, Unfinished, run_all
from series.text import as_markdown
from series.training import Arm, Training
from tqdm import tqdm

from let_titan.compare.result import as_tree
from let_titan.run.summary import surroundings, write_summary

RESULTS = Path(__file__).parent / "results" / "time_series"

STUDY = Study(
    hypothesis=(
        "Under LET as in the paper (lambda_0 = 0.1, for the first 15 % of the steps, block 1 of 3) "
        "a student reaches its baseline's final accuracy in fewer steps and ends no lower; "
        "KD, which keeps its teacher throughout, ends higher where the teacher is better than the "
        "baseline, and lower where it is worse."
    ),
    deciding=(
        "For each student, the difference of final test accuracy to the baseline of the same seed, "
        "averaged over seeds, over the seven sets: Wilcoxon's signed-rank test, two-sided at 5 %, "
        "Holm over the arms. Beside it the steps to the baseline's final accuracy. An arm wins on "
        "one set where the 95 % interval of the paired difference excludes zero."
    ),
    sets=SETS,
    teacher=Model("timesnet", width=16, n_blocks=2),
    students={
        "TimesNet": Model("timesnet", width=32, n_blocks=3),
        "PatchTST": Model("patches", width=64, n_blocks=3),
    },
    arms=(
        Arm("baseline"),
        Arm("LET", lambda_0=0.1),
        Arm("KD", kd_weight=0.5),
    ),
    seeds=(0, 1, 2, 3, 4),
    rates=(3e-4, 1e-3, 3e-3),
    tuning_seeds=(100,),
    training=Training(),
)

TINY = replace(
    STUDY,
    sets=(MADE_UP,),
    teacher=Model("timesnet", width=4, n_blocks=1),
    students={
        "TimesNet": Model("timesnet", width=8, n_blocks=2),
        "PatchTST": Model("patches", width=8, n_blocks=2),
    },
    seeds=(0, 1),
    rates=(3e-3,),
    training=Training(steps=8, batch=4, warm_up=2, evaluate_every=4, s_stop_fraction=0.5),
)


def finished(study: Study, store: Store) -> Iterator[Record]:
    """Yields the study's records as far as they are; trains what is missing if ``store`` does."""
    try:
        yield from run_all(study, store)
    except Unfinished:
        return


def facts_of(study: Study, records: Sequence[Record]) -> dict[str, Any]:
    """Returns versions, hardware, and what the sets and the models on them are."""
    sets = {}
    for data in map(load, study.sets):
        models = {"teacher": study.teacher, **study.students}
        channels, _, classes = data.shape
        sets[data.name] = {
            "train": len(data.train),
            "test": len(data.test),
            "channels": channels,
            "longest": data.longest,
            "cell": data.cell,
            "classes": classes,
            "parameters": {name: size(model.build(data, 0)) for name, model in models.items()},
            "rates": {
                r.get("student", "teacher"): r["rate"] for r in records if r["set"] == data.name
            },
        }
    return {**surroundings(), "sets": sets}


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def report(study: Study, records: Sequence[Record], out: Path) -> None:
    """Writes results.json, report.md and the charts of ``records``."""
    found, facts = find(study, records), facts_of(study, records)
    write_summary(out / "results.json", {**facts, **as_tree(found)})
    draw_differences(study, found, out / "differences.png")
    draw_curves(study, records, out / "curves.png")
    (out / "report.md").write_text(as_markdown(study, found, facts))


def main(args: list[str] | None = None) -> int:
    """Trains what is missing and reports; returns 0, or 2 after a sentence on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help=f"folder of the results ({RESULTS})")
    parser.add_argument("--tiny", action="store_true", help="shows that the path works; with --out")
    parser.add_argument("--report", action="store_true", help="report what is there; train none")
    options = parser.parse_args(args)
    if options.tiny and options.out is None:
        parser.error("--tiny would write over the study's own results: name a folder by --out.")
    out = options.out or RESULTS
    torch.set_num_threads(1)  # models so small gain nothing from a second
    study = TINY if options.tiny else STUDY
    of_seed = len(study.sets) * (1 + len(study.students) * len(study.arms))
    store = Store(out / "runs.jsonl", trains=not options.report)
    try:
        records = list(tqdm(finished(study, store), "runs", of_seed * len(study.seeds)))
        if len(records) < of_seed:
            raise ValueError("not one seed has all its runs yet: run it without --report.")
        report(study, records, out)
    except ValueError as error:
        print(f"time_series: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
