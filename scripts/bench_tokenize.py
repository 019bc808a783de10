"""python scripts/bench_tokenize.py CORPUS --tokenizer FOLDER --out recipes/results/data

How much memory let_titan.data.tokenize takes: CORPUS is repeated to --gb of text (UTF-8 bytes) in
one jsonl file, which is turned into shards by 1 and by 2 workers. Memory is the resident set of the
program and of all its children, added up, asked for ten times a second; and the program's own peak
as the kernel counts it (VmHWM: getrusage's would be that of the process which started it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from let_titan.data.files import data_files, file_digests
from let_titan.data.policy import Policy
from let_titan.data.reading import read_file
from let_titan.device import peak_resident_bytes


def write_text(pattern: str, path: Path, size: int) -> int:
    """Writes whole documents, round and round, until they hold ``size`` bytes; returns the sum."""
    policy, written = Policy(), 0
    with path.open("w") as out:
        while written < size:
            for file in data_files(pattern):
                for line in read_file(file, 0, 0, policy.limit):
                    document = policy.read(file, line, Counter())
                    if document is None or written >= size:
                        continue
                    out.write(json.dumps({"text": document.text}) + "\n")
                    written += len(document.text.encode())
    return written


def resident(process: psutil.Process) -> int:
    """Returns the resident bytes of a process and all its children."""
    found = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            found += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return found


def measure(text: Path, tokenizer: str, out: Path, workers: int) -> dict[str, float]:
    """Makes shards of ``text`` in a process of its own."""
    command = [sys.executable, "-m", "let_titan.data.tokenize", str(text)]
    command += ["--tokenizer", tokenizer, "--out", str(out), "--workers", str(workers)]
    start, peak, high_water = time.perf_counter(), 0, 0
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = psutil.Process(started.pid)
    while process.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, resident(process))
        high_water = max(high_water, peak_resident_bytes(started.pid))
        time.sleep(0.1)
    _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        sys.exit(f"bench_tokenize: {' '.join(command)} ended with {started.returncode}")
    return {
        "workers": workers,
        "peak_rss_mb": peak / 1e6,
        "kernel_peak_rss_mb": high_water / 1e6,
        "wall_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "load": os.getloadavg()[0],
    }


def table(found: list[dict[str, float]]) -> str:
    """Returns the figures as a Markdown table."""
    rows = ["| workers | peak RSS, ten looks a second | the kernel's | CPU time | wall time |"]
    rows.append("|---|---|---|---|---|")
    for one in found:
        memory = f"{one['peak_rss_mb']:.0f} MB | {one['kernel_peak_rss_mb']:.0f} MB"
        times = f"{one['cpu_s']:,.0f} s | {one['wall_s']:,.0f} s"
        rows.append(f"| {one['workers']} | {memory} | {times} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="pattern of files of text")
    parser.add_argument("--tokenizer", required=True, help="as model.hf_assets_path")
    parser.add_argument("--out", type=Path, help="folder for tokenize.json and tokenize.md")
    parser.add_argument("--gb", type=float, default=1.0, help="text, in 1e9 bytes")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.jsonl"
        facts = {
            "corpus_sha256": file_digests(args.corpus),
            "text_bytes": write_text(args.corpus, text, int(args.gb * 1e9)),
            "tokenizer": args.tokenizer,
        }
        found = []
        for workers in args.workers:
            found.append(measure(text, args.tokenizer, Path(scratch) / f"{workers}", workers))
            print(found[-1], flush=True)
    print(table(found))
    if args.out:
        from let_titan.run.summary import surroundings, write_summary

        write_summary(args.out / "tokenize.json", {**facts, **surroundings(), "runs": found})
        (args.out / "tokenize.md").write_text(table(found) + "\n")


if __name__ == "__main__":
    main()
