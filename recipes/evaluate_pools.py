"""Does the evaluation tell a model that knows something from chance, without a hub?

    python recipes/evaluate_pools.py MODEL [--winogrande 3000] [--out FOLDER]

Takes public items from the PyPI package bigbench (downloaded once to outputs/pools, 358 MB),
writes them as folders of offline tasks, and runs python -m let_titan.evaluate on MODEL as a user
does: WinoGrande rebuilt from its authors' pairs as task winogrande, grade-school science questions
as task arc_easy. The splits are not the tasks' own, so the scores compare with no published ones.
Never train on them. Finished parts are kept: the program goes on where it stopped, and a larger
--winogrande adds to a smaller one. Writes recipes/results/evaluate_pools/ (results.json,
report.md), no item.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from pools.bigbench import PACKAGE, examples
from pools.rebuild import science_rows, winogrande_pairs

from let_titan.evaluate.offline import write_offline
from let_titan.evaluate.tasks import SEED
from let_titan.run.summary import surroundings

RESULTS = Path(__file__).parent / "results" / "evaluate_pools"
POOLS = Path("outputs") / "pools"
PART = 500
"""Items of WinoGrande that are evaluated at once."""
SHOTS = 2000
"""Rows of WinoGrande that are never evaluated: its training split, from which the shot comes."""

Splits = dict[str, list[dict[str, Any]]]


def winogrande_parts(found: list[dict[str, Any]], items: int) -> list[Splits]:
    """Returns the first ``items`` of a seeded order in parts, pairs kept together."""
    pairs = winogrande_pairs(found)
    random.Random(SEED).shuffle(pairs)
    rows = [row for pair in pairs for row in pair]
    taken = rows[:-SHOTS][: items - items % 2]
    shots = {"train": rows[-SHOTS:]}
    return [{"validation": taken[i : i + PART], **shots} for i in range(0, len(taken), PART)]


def write_task(task: str, splits: Splits, folder: Path) -> None:
    """Writes a folder of offline tasks with one task, unless it is there with the same rows."""
    data = folder.with_name(f"{folder.name}-data")
    texts = {
        data / task / f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in content)
        for split, content in splits.items()
    }
    if folder.exists() and all(f.exists() and f.read_text() == text for f, text in texts.items()):
        return
    shutil.rmtree(folder, ignore_errors=True)  # the last part of a smaller pool has fewer rows
    (data / task).mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text)
    write_offline(data, folder)


def evaluate(model: Path, task: str, tasks: Path, out: Path) -> dict[str, Any]:
    """Runs the evaluation on a folder's task as a user does; returns what it wrote."""
    command = [sys.executable, "-m", "let_titan.evaluate", str(model), "--tasks", task]
    command += ["--offline", str(tasks), "--device", "cpu", "--dtype", "float32"]
    subprocess.run([*command, "--batch-size", "16", "--out", str(out)], check=True)
    return json.loads((out / "accuracy.json").read_text())


def evaluate_parts(model: Path, task: str, parts: list[Splits], folder: Path) -> dict[str, Any]:
    """Evaluates a pool part by part; returns its figures over all of them.

    The standard error is the harness's: that of a mean of independent items.
    """
    begin, results = time.monotonic(), []
    for number, splits in enumerate(parts):
        tasks = folder / f"{task}-{number:02}"
        write_task(task, splits, tasks)
        written = evaluate(model, task, tasks, folder / f"{task}-runs")
        results.append(written["models"][0]["tasks"][task])
    items, metric = sum(result["items"] for result in results), results[0]["metric"]
    accuracy = sum(result["items"] * result[metric] for result in results) / items
    return {
        "task": task,
        "items": items,
        "metric": metric,
        "accuracy": accuracy,
        "stderr": math.sqrt(accuracy * (1 - accuracy) / (items - 1)),
        "parts": results,
        "settings": {**written["settings"], "digest": written["models"][0]["digest"]},
        "seconds": round(time.monotonic() - begin),
    }


def judged(figures: dict[str, Any], pool: str, pool_items: int, chance: float) -> dict[str, Any]:
    """Says how many standard errors the accuracy lies above chance."""
    above = (figures["accuracy"] - chance) / figures["stderr"]
    said = {"pool": pool, "pool_items": pool_items, "chance": chance}
    return {**said, **figures, "standard_errors_above_chance": above}


def report(results: dict[str, Any]) -> str:
    lines = [
        "# A real model on public items, against chance",
        "",
        f"{results['model']}, one-shot, through `python -m let_titan.evaluate --offline`. Items "
        f"from {results['package']}, evaluated only; splits are not the tasks' own, so nothing "
        "here compares with published scores. Made by `python recipes/evaluate_pools.py`.",
        "",
        "| pool | as task | items | metric | accuracy, % | chance, % | standard errors above |",
        "|---|---|--:|---|--:|--:|--:|",
        *(row(pool) for pool in results["pools"]),
    ]
    return "\n".join(lines) + "\n"


def row(pool: dict[str, Any]) -> str:
    cells = [
        pool["pool"],
        pool["task"],
        f"{pool['items']:,} of {pool['pool_items']:,}",
        pool["metric"],
        f"{100 * pool['accuracy']:.1f} ± {100 * pool['stderr']:.1f}",
        f"{100 * pool['chance']:.1f}",
        f"{pool['standard_errors_above_chance']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder, or a run's checkpoint")
    parser.add_argument(
        "--winogrande", type=int, default=3000, metavar="ITEMS", help="of 24,158 (default: 3000)"
    )
    parser.add_argument("--pools", type=Path, default=POOLS, help="folder of items and caches")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    if options.winogrande < 2:
        parser.error(f"--winogrande {options.winogrande}: a pair, which stays together, is 2.")
    found = examples(options.pools)
    science = science_rows(found["science"])
    chance = fmean(1 / len(row["choices"]["text"]) for row in science)
    parts = winogrande_parts(found["winogrande"], options.winogrande)
    pairs = 2 * len(winogrande_pairs(found["winogrande"]))
    winogrande = evaluate_parts(options.model, "winogrande", parts, options.pools)
    questions = evaluate_parts(options.model, "arc_easy", [{"test": science}], options.pools)
    results = {
        "model": options.model.resolve().name,
        "package": PACKAGE,
        "machine": surroundings(),
        "pools": [
            judged(winogrande, "rebuilt WinoGrande", pairs, 0.5),
            judged(questions, "science questions", len(science), chance),
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "report.md").write_text(report(results))


if __name__ == "__main__":
    main()
