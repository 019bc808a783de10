"""python -m let_titan.compare RUN... --baseline RUN... --out FOLDER

Compares runs with their baseline and writes report.html (one self-contained page), report.md,
report.json and PNG charts. Runs that differ in debug.seed alone are seeds of one arm.
"""

import argparse
import sys
from pathlib import Path

from let_titan.compare.charts import save_png
from let_titan.compare.markdown import report
from let_titan.compare.page import page
from let_titan.compare.result import Comparison, compare
from let_titan.compare.sources import load
from let_titan.compare.text import verdict
from let_titan.compare.twins import OVERRIDES


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="let_titan.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = "a run's folder (job.dump_folder), or wandb:ENTITY/PROJECT/NAME"
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


def read_runs(options: argparse.Namespace) -> Comparison:
    """Loads and compares what the command line names."""
    strangers = set(options.untimed) - {*options.runs, *options.baseline}
    if strangers:
        raise ValueError(
            f"--untimed {min(strangers)} is none of the runs: write it as it was given before."
        )
    loaded = {source: load(source) for source in [*options.baseline, *options.runs]}
    return compare(
        [loaded[source] for source in dict.fromkeys(options.runs)],
        [loaded[source] for source in dict.fromkeys(options.baseline)],
        options.allow,
        {id(loaded[source]) for source in options.untimed},
    )


def write(comparison: Comparison, folder: Path, note: str | None) -> None:
    """Writes every file of a comparison into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": comparison.to_json(),
        "report.md": report(comparison, note),
        "report.html": page(comparison, note),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    save_png(comparison, folder)


def main(args: list[str] | None = None) -> int:
    """Compares; returns 0, or 2 after a sentence on stderr."""
    options = parse(args)
    try:
        comparison = read_runs(options)
        write(comparison, options.out, options.note)
        if options.wandb:
            from let_titan.compare.publish import publish

            publish(comparison, options.out)
    except (ValueError, OSError) as error:
        print(f"let_titan.compare: {error}", file=sys.stderr)
        return 2
    for result in comparison.results:
        print(verdict(result))
    print(f"All of it: {options.out / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
