"""What does a student learn from a teacher with another tokenizer, against one with its own?

    python recipes/cross_tokenizer_training.py [STUDENT ...] [--list | --report]

One question a student: SmolLM2's own tokenizer (teacher.tokenizer = "same"), and r50k, cl100k,
llama3 and o200k under "align". ``cross_tokenizer`` says where these come from, and
recipes/lab/make_smollm2.py takes them. Each student's report goes to
recipes/results/cross_tokenizer/STUDENT, all of them in one table to training.md and training.json.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from lab.arms import BASELINE, ONE
from lab.recipe import Recipe, main, report
from lab.runs import SMOLLM2, Place
from lab.smollm2_arms import ALIGNED, FLOPS, LET, STUDENTS

from let_titan.compare.result import ArmResult
from let_titan.compare.text import factor, interval

HYPOTHESIS = (
    "A teacher that reads the text through its own tokenizer gives a student what one with the "
    "student's tokenizer gives; least of it to r50k, whose tokens' targets end a byte early. "
    "LogSum and CCA differ from the cosine by less than seeds do."
)
METRIC = (
    "Of each student against the baseline with its own tokenizer: steps to that baseline's last "
    "validation loss, and the difference there in percent of that loss, which is the same in nats "
    "per token and in bits per byte and so compares across vocabularies. One seed: a screening."
    + FLOPS
)
LOSSES = {"LET": {}, "LET, logsum": {"let.loss": "logsum"}, "LET, cca": {"let.loss": "cca"}}


def question(student: str, keys: Mapping[str, str], let: Mapping[str, str]) -> Recipe:
    """Returns one student's question; only ``same`` and ``r50k`` ask for other losses, too."""
    losses = LOSSES if student in ("same", "r50k") else {"LET": {}}
    return Recipe(
        name=f"cross_tokenizer/{student}",
        hypothesis=HYPOTHESIS,
        metric=METRIC,
        arms={name: {**keys, **let, **loss} for name, loss in losses.items()},
        seeds=ONE,
        baseline=keys,
        place=SMOLLM2,
    )


RECIPES = {
    "same": question("same", BASELINE, LET),
    **{name: question(name, keys, ALIGNED) for name, keys in STUDENTS.items()},
}


def row(result: ArmResult) -> dict[str, Any]:
    """Returns an arm's line of the table."""
    last, target = result.rows[-1], result.target
    speed_up = target.costs["steps"].speed_up if target else None
    return {
        "arm": result.name,
        "baseline": last.baseline.value,
        "difference": interval(last.difference, "{:+.3f}"),
        "percent": 100 * last.difference.value / last.baseline.value,
        "speed_up": factor(speed_up) if speed_up else "not reached",
    }


def summarise(place: Place) -> str:
    """Reports what is finished of every student; returns the table of all, which it writes."""
    folder = place.results / "cross_tokenizer"
    found = {name: report(recipe, place) for name, recipe in RECIPES.items()}
    rows = {name: [row(r) for r in it.results] for name, it in found.items() if it is not None}
    to_come = ", ".join(name for name in RECIPES if name not in rows)
    lines = [
        "# A teacher with another tokenizer: what its student learns",
        "",
        f"{HYPOTHESIS} Deciding: {METRIC}" + (f" To come: {to_come}." if to_come else ""),
        "",
        "| student | arm | baseline, nats a token | difference | in percent | speed-up in steps |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, arms in rows.items():
        for arm in arms:
            lines.append(
                f"| [{name}]({name}/report.md) | {arm['arm']} | {arm['baseline']:.3f} "
                f"| {arm['difference']} | {arm['percent']:+.2f} | {arm['speed_up']} |"
            )
    text = "\n".join([*lines, ""])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.md").write_text(text)
    (folder / "training.json").write_text(json.dumps(rows, indent=1) + "\n")
    return text


def run() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("students", nargs="*", help=f"of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--list", action="store_true", help="name the runs and train none")
    parser.add_argument("--report", action="store_true", help="report what is there; train none")
    options = parser.parse_args()
    if unknown := ", ".join(name for name in options.students if name not in RECIPES):
        parser.error(f"there is no student {unknown}: they are {', '.join(RECIPES)}.")
    flags = [flag for flag in ("list", "report") if getattr(options, flag)]
    for name in options.students or RECIPES:
        main(RECIPES[name], [f"--{flag}" for flag in flags])
    if not options.list:
        print(summarise(SMOLLM2))


if __name__ == "__main__":
    run()
