"""python scripts/bench_data.py CORPUS --tokenizer FOLDER --out recipes/results/data

How fast one process on one core reads a corpus: torchtitan's own text loader, ours on the fly, ours
from token shards, beside the tokenizer alone; how their memory grows; how long they take to start,
and to resume deep in the corpus. Each figure is of a process of its own, and the turns go round
several times, so that a busy machine slows all alike: the best turn counts.
"""

import let_titan  # noqa: F401  # isort: skip  # it must be imported before torchtitan

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from datasets import load_dataset
from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataset

from let_titan.build_data import pile_loader
from let_titan.data.files import data_files, file_digests
from let_titan.data.lanes import TOKENISE_AT_ONCE
from let_titan.data.policy import policy_of
from let_titan.data.settings import Data
from let_titan.data.tokenize import main as tokenize
from let_titan.data.tokenize import text_batches
from let_titan.run.summary import surroundings, write_summary
from let_titan.tokenizer.build import document_encoder, load_tokenizer

SEQ_LEN, BATCH = 2048, 8


def torchtitan_loader(pattern: str, folder: str) -> Any:
    """torchtitan 0.2.2's loader over Hugging Face datasets, as the ``c4`` data set has it."""

    def stream(path: str) -> Any:
        files = [file.path for file in data_files(path)]
        return load_dataset("json", data_files=files, split="train", streaming=True)

    DATASETS["bench"] = DatasetConfig(pattern, stream, lambda sample: sample["text"])
    dataset = HuggingFaceTextDataset(
        "bench", pattern, load_tokenizer(folder), SEQ_LEN, infinite=True
    )
    return ParallelAwareDataloader(dataset, dp_rank=0, dp_world_size=1, batch_size=BATCH)


def our_loader(pattern: str, folder: str) -> Any:
    reading = SimpleNamespace(num_workers=0, prefetch_factor=None, pin_memory=False)
    section = SimpleNamespace(
        dataset_path=pattern, local_batch_size=BATCH, seq_len=SEQ_LEN, dataloader=reading
    )
    tokenizer = load_tokenizer(folder)
    return pile_loader(
        Data(), section, tokenizer, validation=False, lanes=1, rank=0, ranks=1, infinite=True
    )


LOADERS = {"torchtitan": torchtitan_loader, "text": our_loader, "shards": our_loader}


def measure_loader(name: str, pattern: str, folder: str, tokens: int) -> dict[str, float]:
    """Reads ``tokens`` and resumes there, in this process."""
    process, start = psutil.Process(), time.perf_counter()
    loader = LOADERS[name](pattern, folder)
    batches = iter(loader)
    next(batches)
    figures = {"start_s": time.perf_counter() - start}
    before, steps = process.memory_info().rss, tokens // (SEQ_LEN * BATCH)
    figures |= speed(lambda: sum(next(batches)[1].numel() for _ in range(steps)))
    figures["rss_growth_mib"] = (process.memory_info().rss - before) / 2**20
    state, wanted = loader.state_dict(), next(batches)[1]
    start = time.perf_counter()
    again = LOADERS[name](pattern, folder)
    again.load_state_dict(state)
    found = next(iter(again))[1]
    assert wanted.equal(found)
    return {**figures, "resume_s": time.perf_counter() - start}


def measure_tokenizer(pattern: str, folder: str, tokens: int) -> dict[str, float]:
    """Runs the tokenizer alone, in portions as the loader's, over texts that are in memory."""
    policy, portions, characters = policy_of(Data(), False), [], 0
    for batch in text_batches(data_files(pattern)[0], policy, Counter(), TOKENISE_AT_ONCE):
        portions.append([document.text for _, document in batch])
        characters += sum(map(len, portions[-1]))
        if characters > 4 * tokens:
            break
    encode = document_encoder(load_tokenizer(folder), True, True)
    return speed(lambda: sum(len(ids) for texts in portions for ids in encode(texts)))


def speed(read: Callable[[], int]) -> dict[str, float]:
    """Times a function that returns the tokens it has read."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = read()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"tokens": tokens, "tokens_per_s": tokens / wall, "tokens_per_cpu_s": tokens / cpu}


def measure(name: str, pattern: str, folder: str, tokens: int) -> dict[str, float]:
    if name == "tokenizer":
        return measure_tokenizer(pattern, folder, tokens)
    return measure_loader(name, pattern, folder, tokens)


def in_a_process(name: str, pattern: str, folder: str, tokens: int) -> dict[str, float]:
    """Runs ``measure`` in a new interpreter, on one thread."""
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, pattern, "--tokenizer", folder]
    command += ["--measure", name, "--tokens", str(tokens)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(corpus: str, folder: str, tokens: int, deep: int, turns: int) -> dict[str, Any]:
    """Returns each way's best turn; shards are read ``deep`` tokens far, the others ``tokens``."""
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as shards:
        if tokenize([corpus, "--tokenizer", folder, "--out", shards]):
            sys.exit(2)
        for _ in range(turns):
            for name in ("tokenizer", *LOADERS):
                pattern = f"{shards}/*.arrow" if name == "shards" else corpus
                count = deep if name == "shards" else tokens
                found = in_a_process(name, pattern, folder, count)
                print(name, found, flush=True)
                results.setdefault(name, []).append(found)
    return {
        name: max(turns_of, key=lambda found: found["tokens_per_cpu_s"])
        for name, turns_of in results.items()
    }


def table(best: dict[str, dict[str, float]]) -> str:
    """Returns the figures as a Markdown table."""
    keys = ["tokens", "tokens_per_cpu_s", "tokens_per_s", "rss_growth_mib", "start_s", "resume_s"]
    rows = [f"| | {' | '.join(keys)} |", f"|{'---|' * (len(keys) + 1)}"]
    for name, found in best.items():
        cells = [f"{found[key]:,.{0 if found[key] >= 100 else 2}f}" if key in found else ""
                 for key in keys]  # fmt: skip
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="pattern of files of text")
    parser.add_argument("--tokenizer", required=True, help="folder of a tokenizer")
    parser.add_argument("--out", type=Path, help="folder for bench.json and bench.md")
    parser.add_argument("--tokens", type=int, default=3_000_000, help="read by those that tokenise")
    parser.add_argument("--deep", type=int, default=30_000_000, help="read from shards")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--measure", choices=["tokenizer", *LOADERS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.corpus, args.tokenizer, args.tokens)))
        return
    best = compare(args.corpus, args.tokenizer, args.tokens, args.deep, args.turns)
    print(table(best))
    if args.out:
        facts = {"corpus_sha256": file_digests(args.corpus), "seq_len": SEQ_LEN, "batch": BATCH}
        write_summary(args.out / "bench.json", {**facts, **surroundings(), "best": best})
        (args.out / "bench.md").write_text(table(best) + "\n")


if __name__ == "__main__":
    main()
