"""python -m let_titan.compare RUN... --baseline RUN... --out FOLDER

Compares runs with their baseline and writes report.html (one self-contained page), report.md,
report.json and PNG charts. Runs that differ in debug.seed alone are seeds of one arm.
"""

import argparse
import sys
from pathlib import Path

from let_titan.compare.sources import load, place
from let_titan.compare.twins import OVERRIDES
from let_titan.runs import Run


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="let_titan.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = "a run's folder (job.dump_folder), or wandb:ENTITY/PROJECT/[GROUP/]NAME"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=source)
    parser.add_argument("--baseline", nargs="+", required=True, metavar="RUN", help=source)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        choices=OVERRIDES,
        help="compare although the runs differ in this (hardware: compare times all the same)",
    )
    parser.add_argument(
        "--untimed",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs, of those given, whose clock does not count: a busy machine",
    )
    parser.add_argument("--note", help="a sentence to stand above all else")
    parser.add_argument("--wandb", action="store_true", help="log it to wandb, in the runs' group")
    return parser.parse_args(args)


def read_runs(options: argparse.Namespace) -> dict[str, Run]:
    """Loads what the command line names, each run once, by its ``place``."""
    given = {place(source): source for source in [*options.baseline, *options.runs]}
    strangers = {source for source in options.untimed if place(source) not in given}
    if strangers:
        raise ValueError(
            f"--untimed {min(strangers)} is none of the runs: give one of those that are compared."
        )
    return {where: load(source) for where, source in given.items()}


def main(args: list[str] | None = None) -> int:
    """Compares; returns 0, or 2 after a sentence on stderr."""
    options = parse(args)
    try:
        runs = read_runs(options)
        verdicts = work(options, runs)
    except (ValueError, OSError) as error:
        print(f"let_titan.compare: {error}", file=sys.stderr)
        return 2
    print(*verdicts, f"All of it: {options.out / 'report.html'}", sep="\n")
    return 0


def work(options: argparse.Namespace, runs: dict[str, Run]) -> list[str]:
    """Compares, writes and logs; returns a verdict an arm."""
    # These bring scipy and matplotlib, which take seconds: mistakes were told by now.
    from let_titan.compare.files import write
    from let_titan.compare.result import compare
    from let_titan.compare.text import verdict

    comparison = compare(
        [runs[where] for where in dict.fromkeys(map(place, options.runs))],
        [runs[where] for where in dict.fromkeys(map(place, options.baseline))],
        options.allow,
        {id(runs[place(source)]) for source in options.untimed},
    )
    write(comparison, options.out, options.note)
    if options.wandb:
        from let_titan.compare.publish import publish

        publish(comparison, options.out)
    return [verdict(result) for result in comparison.results]


if __name__ == "__main__":
    sys.exit(main())
