"""--run and --tokenizer, of every program that exports a checkpoint."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where a checkpoint's run and its tokenizer are now."""
    parser.add_argument("--run", type=Path, help="the run's folder, if the checkpoint left it")
    parser.add_argument("--tokenizer", help="the run's tokenizer folder, if it was moved")
