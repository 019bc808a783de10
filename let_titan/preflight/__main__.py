"""python -m let_titan.preflight --job.config_file FILE.toml [--world-size 32] [--gpu a100] [--json]

Other flags are torchtitan's and win over the file: --let.k 4.
"""

import argparse
import json
import sys
import warnings

from let_titan.arguments import count, fraction
from let_titan.config import LetConfigManager
from let_titan.errors import ConfigError
from let_titan.preflight.examination import choose_gpu, examine
from let_titan.preflight.findings import Findings
from let_titan.preflight.gpus import GPUS, GPUS_PER_NODE
from let_titan.preflight.table import show
from let_titan.quiet import ENUMS, EXTENSIONS, silent
from let_titan.upstream import check_version

DEFAULT_WORLD_SIZE = 32
"""The paper's."""

NO_FILE = "No config file was given: add --job.config_file FILE.toml, one of train_configs/."


def main(args: list[str] | None = None) -> int:
    """Prints the report; returns 2 with mistakes, else 0."""
    own, rest = parser().parse_known_args(args)
    try:
        check_version()
        config = LetConfigManager().parse_args(rest)
    except ConfigError as error:
        return refuse(Findings(mistakes=[str(e) for e in (error, *error.others)]), own.json)
    gpu = choose_gpu(config, own.gpu)
    # What libraries miss on this machine says nothing of the one that the report is about.
    with silent(ENUMS, EXTENSIONS), warnings.catch_warnings(action="ignore"):
        report = examine(config, own.world_size, gpu, own.mfu, own.gpus_per_node)
    if report.findings.mistakes:
        if not config.job.config_file:
            report.findings.mistakes.insert(0, NO_FILE)
        return refuse(report.findings, own.json)
    if own.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        show(report)
    return 0


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m let_titan.preflight",
        usage="%(prog)s --job.config_file FILE.toml [options] [flags of let_titan.train]",
        description="Checks a config and prices its run on one CPU, before it starts.",
        epilog="Other flags are those of let_titan.train: --job.config_file FILE.toml, --let.k 4.",
        allow_abbrev=False,
    )
    flags.add_argument(
        "--world-size", type=count, default=DEFAULT_WORLD_SIZE, help="GPUs of the run (32)"
    )
    flags.add_argument(
        "--gpu", choices=GPUS, help="of which kind (a100, or h100 where the config asks for float8)"
    )
    flags.add_argument(
        "--gpus-per-node",
        type=count,
        default=GPUS_PER_NODE,
        help='GPUs of a node (8), for teacher.placement = "node"',
    )
    flags.add_argument("--mfu", type=fraction, help="model FLOPs utilisation to reckon with")
    flags.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return flags


def refuse(findings: Findings, as_json: bool) -> int:
    """Tells every mistake, and returns the exit code."""
    if as_json:
        print(json.dumps({"mistakes": findings.mistakes, "unchecked": findings.unchecked}))
    for mistake in findings.mistakes:
        print(f"let_titan: {mistake}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
