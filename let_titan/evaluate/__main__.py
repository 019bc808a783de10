"""python -m let_titan.evaluate PATH... --out OUT

Evaluates models one-shot on the paper's nine tasks with lm-evaluation-harness and writes the table
as OUT/accuracy.json and OUT/accuracy.md. PATH is a step-N folder or a run's folder (its last
checkpoint), exported on the way, or a Hugging Face folder. Results are cached in OUT by model, task
and settings; those of a run's checkpoints are also noted in its evaluations.jsonl.
"""

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
from rich.console import Console

from let_titan.errors import ConfigError, exit_code, writing
from let_titan.evaluate import table
from let_titan.evaluate.harness import Harness, Settings, evaluate, harness_python
from let_titan.evaluate.models import find_models
from let_titan.evaluate.record import note
from let_titan.evaluate.tasks import SEED, SHOTS, TASKS
from let_titan.export.options import add_options


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="let_titan.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="what to evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and cache")
    parser.add_argument(
        "--tasks", default=",".join(TASKS), help="names, parted by commas (default: the nine)"
    )
    parser.add_argument(
        "--offline", type=Path, metavar="DIR", help="folder of task YAMLs and data; no hub is asked"
    )
    parser.add_argument(
        "--add-bos",
        action=argparse.BooleanOptionalAction,
        help="BOS before the text (default: as the run trained; none for models of others)",
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--batch-size", default="auto", help="sequences at once (default: auto)")
    parser.add_argument("--limit", type=int, help="items of each task (default: all)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch's name"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, help="processes with a whole model each (accelerate launch)"
    )
    parser.add_argument(
        "--parallelize", action="store_true", help="part one model over all GPUs instead"
    )
    add_options(parser)
    return parser.parse_args(args)


def settings_of(options: argparse.Namespace) -> Settings:
    """Returns the settings.

    Raises:
        ConfigError: a number is out of range, or the two ways to use several GPUs meet.
    """
    if options.gpus < 1 or (options.limit is not None and options.limit < 1):
        raise ConfigError(
            f"--gpus {options.gpus} and --limit {options.limit} must be at least 1, or left out."
        )
    if options.gpus > 1 and options.parallelize:
        raise ConfigError(
            f"--gpus {options.gpus} and --parallelize exclude each other: a model per GPU is "
            "faster where one fits, --parallelize is for one that does not."
        )
    given = {key.name: getattr(options, key.name) for key in fields(Settings)}
    return Settings(**{**given, "tasks": tuple(options.tasks.split(","))})


def run(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    harness = Harness(harness_python())
    models = find_models(options.paths, options.out / "exports", options.run, options.tokenizer)
    rows = []
    for model in models:
        results = evaluate(model, settings, harness, options.out)
        rows.append((model, results))
        if model.run is not None and model.step is not None:
            note(model.run, model.step, tasks=results, average=table.average(results))
    said = asdict(settings) | {"offline": settings.offline and settings.offline.name}
    facts = {"versions": harness.versions, "seed": SEED, "shots": SHOTS}
    with writing(options.out):
        table.write(rows, said | facts, options.out)
    table.show(rows, Console())


def main(args: list[str] | None = None) -> int:
    """Evaluates; returns 0, or after a sentence on stderr 2 (the input) or 1 (the run of it)."""
    options = parse(args)
    return exit_code("let_titan.evaluate", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
