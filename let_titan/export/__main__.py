"""python -m let_titan.export CHECKPOINT OUT

Writes a checkpoint as a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load:
weights in safetensors, config.json, tokenizer, generation_config.json, README.md.
"""

import argparse
import sys
from pathlib import Path

from torchtitan.config import TORCH_DTYPE_MAP

from let_titan.arguments import positive
from let_titan.errors import exit_code
from let_titan.export.folder import SHARD_GB, export
from let_titan.export.options import add_options
from let_titan.export.source import find_source


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="let_titan.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a step-N folder, or a run's folder: its last checkpoint"
    )
    parser.add_argument("out", type=Path, help="folder to write; must not exist yet")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the weights (default: float32, as they were trained)",
    )
    parser.add_argument(
        "--shard-gb",
        type=positive,
        default=SHARD_GB,
        metavar="GB",
        help=f"largest safetensors file, held in memory (default: {SHARD_GB})",
    )
    add_options(parser)
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Exports; returns 0, or after a sentence on stderr 2 (the input) or 1 (the disk)."""
    options = parse(args)
    return exit_code("let_titan.export", lambda: run(options))


def run(options: argparse.Namespace) -> None:
    source = find_source(options.checkpoint, options.run)
    export(
        source,
        options.out,
        dtype=TORCH_DTYPE_MAP[options.dtype],
        tokenizer=options.tokenizer,
        shard_gb=options.shard_gb,
        tell=lambda name: print(f"{name} written", flush=True),
    )
    print(f"{source.folder} is now {options.out}, in {options.dtype}.")


if __name__ == "__main__":
    sys.exit(main())
