"""python -m let_titan.probe --job.config_file FILE.toml [--steps 200] [--blocks 2,3,6] [--nproc 1]

Trains the first steps of the config's run once for each candidate block k, and once without a
teacher; then proposes k, lambda_0 and s_stop. Other flags are torchtitan's and win over the file:
--model.flavor demo.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from let_titan.checks import find_mistakes
from let_titan.checks.imported import import_mistakes
from let_titan.checks.model import flavor_mistakes
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.config.manager import without_keys
from let_titan.errors import ConfigError, exit_code, writing
from let_titan.plan import aligns
from let_titan.probe.proposal import Evidence, Proposal, baseline_of, evidence_of, propose
from let_titan.probe.table import show
from let_titan.probe.trials import (
    BASELINE,
    Train,
    arguments,
    begins_with_weights,
    candidates,
    in_processes,
    run_trial,
)
from let_titan.quiet import EXTENSIONS, silent

FAILED = "failed"
"""In the folder of a probe that did not come to its end: why."""


def main(args: list[str] | None = None, train: Train | None = None) -> int:
    """Probes; returns 0, or after a sentence on stderr 2 (the input) or 1 (a run failed).

    Args:
        args: of the command line.
        train: used in place of torchrun.
    """
    own, rest = parser().parse_known_args(args)
    return exit_code("let_titan.probe", lambda: probe(own, rest, train or in_processes(own.nproc)))


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m let_titan.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--steps", type=int, default=200, help="of each run (200)")
    flags.add_argument("--blocks", default="", help="candidates for k, e.g. 2,3,6")
    flags.add_argument(
        "--target-ratio",
        type=float,
        default=0.02,
        help="norm of the alignment's gradient over the NLL's to aim at (0.02: that of the best "
        "weight in the method lab)",
    )
    flags.add_argument("--nproc", type=int, default=1, help="processes of each run (1)")
    flags.add_argument("--out", type=Path, help="folder of the runs (job.dump_folder/probe)")
    flags.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return flags


def probe(own: argparse.Namespace, rest: list[str], train: Train) -> None:
    config = LetConfigManager().parse_args(rest)
    check(own, config)
    blocks = candidates(config, [int(x) for x in own.blocks.split(",") if x])
    out = own.out or Path(config.job.dump_folder) / "probe"
    if out.exists() and not (out / FAILED).is_file():
        raise ConfigError(f"{str(out)!r} exists: remove it, or choose another folder by --out.")
    shared = without_keys(rest, {"let.s_stop", "let.s_stop_fraction"})  # a trial has its own
    runs = {
        block: [*shared, *arguments(config, own.steps, block, out / name_of(block))]
        for block in (0, *blocks)
    }
    with silent(EXTENSIONS):  # the runs' logs have it
        for args in runs.values():
            for mistake in find_mistakes(LetConfigManager().parse_args(args), own.nproc):
                raise mistake
    set_failed_aside(out)
    out.mkdir(parents=True)
    with marking(out):
        report, evidence, proposal = look(own, config, runs, out, train)
    if own.json:
        print(json.dumps(report, indent=2))
    else:
        show(evidence, proposal, own.steps)


def set_failed_aside(out: Path) -> None:
    """Renames what a probe that failed left, so that the same command can be given again."""
    if out.exists():
        with writing(out):
            out.replace(out.with_name(f"{out.name}.failed.{time.time_ns()}"))


@contextmanager
def marking(out: Path) -> Iterator[None]:
    """Leaves a mark in ``out`` where the probe fails; one that still runs must not be set aside."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # what stopped the probe is to be told, not this
            (out / FAILED).write_text(f"{error or type(error).__name__}\n")
        raise


def look(
    own: argparse.Namespace,
    config: LetJobConfig,
    runs: dict[int, list[str]],
    out: Path,
    train: Train,
) -> tuple[dict[str, Any], list[Evidence], Proposal]:
    """Trains ``runs``, arguments by block, below ``out`` and draws from them; writes probe.json."""
    trials = []
    for number, (block, args) in enumerate(runs.items(), start=1):
        begun = time.perf_counter()
        trials.append(run_trial(train, args, own.steps, block, out / name_of(block)))
        took = time.perf_counter() - begun
        print(
            f"{number} of {len(runs)}: {name_of(block)}, {own.steps} steps in {took:.0f} s",
            file=sys.stderr,
        )
    let = config.let
    baseline = baseline_of(trials)
    evidence = [
        evidence_of(trial, baseline, let.auto_stop_cosine, let.auto_stop_gain)
        for trial in trials
        if trial is not baseline
    ]
    proposal = propose(evidence, let.lambda_0, own.target_ratio, own.steps)
    report: dict[str, Any] = {
        "steps": own.steps,
        "lambda_0": let.lambda_0,
        "target_ratio": own.target_ratio,
        "baseline_loss": baseline.loss,
        "evidence": [asdict(row) for row in evidence],
        "proposal": proposal.as_dict(),
    }
    with writing(out / "probe.json"):
        (out / "probe.json").write_text(json.dumps(report, indent=2) + "\n")
    return report, evidence, proposal


def name_of(block: int) -> str:
    return f"k{block}" if block else BASELINE


def check(own: argparse.Namespace, config: LetJobConfig) -> None:
    """What a probe needs of its flags and of the config.

    Raises:
        ConfigError: names the value and the cure.
    """
    for mistake in [*import_mistakes(config), *flavor_mistakes(config)]:
        raise mistake  # before anything asks how many blocks the student has
    if own.steps < 2 or own.nproc < 1 or not own.target_ratio > 0:
        raise ConfigError(
            "--nproc must be at least 1, --steps 2 (of one look no error can be told), and "
            "--target-ratio above 0."
        )
    if not all(part.isdecimal() for part in own.blocks.split(",") if part):
        raise ConfigError(f"--blocks {own.blocks} must be numbers with commas, e.g. 2,3,6.")
    if not aligns(config):
        raise ConfigError(
            "The config has no alignment: set let.enable = true and let.lambda_0, and leave "
            "[distill] out."
        )
    if begins_with_weights(config) and not config.checkpoint.initial_load_model_only:
        raise ConfigError(
            "checkpoint.initial_load_model_only = false goes on at the checkpoint's step, and the "
            "probe trains the first ones: set it to true, or leave initial_load_path out."
        )
    if config.let.pairs:
        raise ConfigError(
            f"let.pairs = {config.let.pairs!r} fixes the blocks that the probe would choose: leave "
            "it out, and name the teacher's layer by teacher.layer."
        )


if __name__ == "__main__":
    sys.exit(main())
