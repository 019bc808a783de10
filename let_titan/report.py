"""A baseline and its LET twin side by side: ``let_titan.compare`` for exactly two runs.

python -m let_titan.report RUNS/baseline RUNS/let --out REPORT
"""

import argparse
import sys
from pathlib import Path

from let_titan.compare.__main__ import main as compare
from let_titan.runs import Run

QUICK = "Quick run: these curves prove nothing, the run only proves that the path works."


def check_order(baseline: str, let: str) -> None:
    """ValueError unless the folders are a baseline and a LET run, in this order."""
    if [bool(Run.load(run).fact("let_plan.s_stop")) for run in (baseline, let)] != [False, True]:
        raise ValueError(
            f"{baseline} must have run without a teacher and {let} with one: give the baseline's "
            "folder first, then the LET run's."
        )


def main(args: list[str] | None = None) -> int:
    """Writes the report; returns 0, or 2 after a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="let_titan.report", description=__doc__)
    parser.add_argument("baseline", help="folder of the run without a teacher")
    parser.add_argument("let", help="folder of the run with LET")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--quick", action="store_true", help="say that the curves prove nothing")
    options = parser.parse_args(args)
    try:
        check_order(options.baseline, options.let)
    except (ValueError, OSError) as error:
        print(f"let_titan.report: {error}", file=sys.stderr)
        return 2
    note = ["--note", QUICK] if options.quick else []
    runs = [options.let, "--baseline", options.baseline]
    return compare([*runs, "--out", str(options.out), *note])


if __name__ == "__main__":
    sys.exit(main())
