"""python -m let_titan.evaluate.perplexity PATH... --data GLOB --out OUT

Perplexity of models on a corpus in The Pile's format, over all of it and per set
(``pile_set_name``), per token and per byte of text, so that vocabularies compare. PATH is a step-N
folder or a run's folder (its last checkpoint), exported on the way, or a Hugging Face folder. What
the run's [data] leaves out of validation is left out here.
"""

import argparse
import json
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError
from torchtitan.config import TORCH_DTYPE_MAP
from transformers import AutoConfig, AutoModelForCausalLM

from let_titan.config import Data
from let_titan.data.files import PILE, data_fingerprint
from let_titan.data.policy import policy_of
from let_titan.disk import make_folder, replace_text
from let_titan.errors import ConfigError, exit_code
from let_titan.evaluate.models import Model, find_models
from let_titan.evaluate.record import note
from let_titan.evaluate.scoring import figures, measure
from let_titan.evaluate.windows import Packed
from let_titan.export.options import add_options
from let_titan.tokenizer.build import load_tokenizer, token_bytes

OVERALL = "overall"

UNSAID = 2048
"""The window of a model that sets no limit, as BLOOM and Mamba do."""


def corpus_of(model: Model, options: argparse.Namespace) -> Packed:
    """Returns the documents of ``--data`` that the trainer's validation would read, packed so.

    Raises:
        ConfigError: no file, or one of token shards, or a tokenizer that cannot be read.
    """
    bos = model.add_bos if options.add_bos is None else options.add_bos
    eos = model.add_eos if options.add_eos is None else options.add_eos
    data = Data() if options.all_documents else model.data
    policy = policy_of(data, validation=True)
    return Packed(options.data, str(model.folder), bos, eos, policy)


def perplexity(
    model: Model, corpus: Packed, seq_len: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Returns {"overall" or a set's name: figures}.

    Raises:
        ConfigError: the corpus fills no window, or the weights cannot be read.
    """
    try:
        network = AutoModelForCausalLM.from_pretrained(
            model.folder, dtype=TORCH_DTYPE_MAP[options.dtype], local_files_only=True
        )
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{str(model.folder)!r} holds no weights that can be read ({first_line(error)}): copy "
            "the model's files anew."
        ) from error
    network = network.to(options.device).eval()
    sampled = islice(corpus.windows(seq_len, options.stride), 0, None, options.every)
    windows = islice(sampled, options.windows)
    n_bytes = token_bytes(load_tokenizer(str(model.folder)))
    sums = measure(network, windows, options.batch_size, n_bytes)
    if not sums:
        raise ConfigError(
            f"{options.data!r} does not fill one window of {seq_len} tokens "
            f"({said(corpus.left_out)} left out): lower --seq-len, or pass --all-documents."
        )
    sets = {corpus.names[index] or "(no name)": figures(sums[index]) for index in sorted(sums)}
    return {OVERALL: figures(np.sum(list(sums.values()), axis=0)), **sets}


def said(left_out: Counter[str]) -> str:
    """Returns what was left out, as in "2 too long, 1 empty"."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing"


def first_line(error: Exception) -> str:
    """Returns what an error of transformers says in its first line, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def context(model: Model, asked: int | None) -> int:
    """Returns S: what is asked for, else what the model was trained at.

    Raises:
        ConfigError: it is beyond what the model can read, or config.json cannot be read.
    """
    longest = longest_of(model.folder)
    if asked is not None and not 1 <= asked <= (longest or asked):
        raise ConfigError(
            f"--seq-len {asked} must be from 1 to {longest or 'any number'}, which {model.name} "
            "was made for."
        )
    return asked or longest or UNSAID


def longest_of(folder: Path) -> int | None:
    """Returns the most tokens that a model reads at once; None where its config.json sets no limit.

    transformers knows under which name each architecture has it: GPT-2's is n_positions.

    Raises:
        ConfigError: config.json cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ConfigError(
            f"{str(folder)!r} has no config.json that can be read ({first_line(error)}): give the "
            "folder of a Hugging Face model."
        ) from error
    return getattr(config, "max_position_embeddings", None)


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="let_titan.evaluate.perplexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="what to evaluate")
    parser.add_argument("--data", required=True, metavar="GLOB", help="as validation.dataset_path")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and exports")
    parser.add_argument("--seq-len", type=int, help="tokens read at once (default: as trained)")
    parser.add_argument(
        "--stride",
        type=int,
        help="tokens from window to window, each scored once (default: plain windows, as the "
        "trainer's validation)",
    )
    parser.add_argument("--windows", type=int, help="windows at most (default: the whole corpus)")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="each N-th window alone: an even sample of a large corpus (default: 1)",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="windows at once (default: 1)")
    parser.add_argument(
        "--all-documents",
        action="store_true",
        help="also what the run's data.weights, max_document_mib and validation_fraction leave out",
    )
    for name in ("--add-bos", "--add-eos"):
        parser.add_argument(
            name,
            action=argparse.BooleanOptionalAction,
            help="default: as the run trained; not for models of others",
        )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch's name"
    )
    add_options(parser)
    return parser.parse_args(args)


def check(options: argparse.Namespace) -> None:
    """Raises ConfigError for a number out of range, before anything is loaded."""
    for name in ("windows", "every", "batch_size", "stride"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value} must be at least 1.")


def prepare(model: Model, options: argparse.Namespace) -> tuple[Model, Packed, int]:
    """Returns the model, the corpus as it reads it, and its window.

    Raises:
        ConfigError: what is wrong with one of them.
    """
    seq_len = context(model, options.seq_len)
    if options.stride is not None and options.stride > seq_len:
        raise ConfigError(
            f"--stride {options.stride} must not pass the window of {seq_len} tokens."
        )
    return model, corpus_of(model, options), seq_len


def run(options: argparse.Namespace) -> None:
    """Evaluates the models in turn, once all of them are found; writes each result as it comes.

    Raises:
        ConfigError: a mistake in the input.
        RunError: the results cannot be written.
    """
    check(options)
    models = find_models(options.paths, options.out / "exports", options.run, options.tokenizer)
    prepared = [prepare(model, options) for model in models]
    make_folder(options.out)
    found: list[dict[str, Any]] = []
    for model, corpus, seq_len in prepared:
        result = perplexity(model, corpus, seq_len, options)
        if model.run is not None and model.step is not None:
            read = {"seq_len": seq_len, "stride": options.stride}
            noted = {part: {**x, **read} for part, x in result.items()}
            note(model.run, model.step, perplexity=noted)
        facts = {"name": model.name, "step": model.step, "digest": model.digest}
        keys = ("stride", "windows", "every", "dtype", "all_documents")
        settings = {"seq_len": seq_len, **{key: getattr(options, key) for key in keys}}
        left_out = {"left_out": dict(corpus.left_out)}
        found.append({**facts, **settings, **left_out, "perplexity": result})
        content = {"data": data_fingerprint(PILE, options.data), "models": found}
        replace_text(options.out / "perplexity.json", json.dumps(content, indent=2) + "\n")
        show(model.name, result)


def show(name: str, result: dict[str, dict[str, float]]) -> None:
    """Prints one model's table."""
    table = Table("set", "per token", "per byte", "bits per byte", "tokens", title=escape(name))
    for part, x in result.items():
        numbers = (f"{x[key]:.4f}" for key in ("per_token", "per_byte", "bits_per_byte"))
        table.add_row(escape(part), *numbers, f"{x['tokens']:,}")
    Console().print(table)


def main(args: list[str] | None = None) -> int:
    """Evaluates; returns 0, or after a sentence on stderr 2 (the input) or 1 (the run of it)."""
    options = parse(args)
    return exit_code("let_titan.evaluate.perplexity", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
