"""How does LET's cost scale with student, teacher, sequence and ranks?

    python recipes/scaling.py [--out FOLDER]

Asks preflight's model of cost (no weights, no data, a minute on one core) and compares it with
every measurement in recipes/results/overhead/ and, of gpu_check.sh, in
recipes/results/gpu-DEVICE/overhead/. Writes recipes/results/scaling/: results.json,
report.md, overhead.png. docs/scaling.md says what follows.
"""

import argparse
import json
from itertools import chain
from pathlib import Path
from typing import Any

from scaling_chart import draw
from tqdm import tqdm

from let_titan.config import LetConfigManager
from let_titan.plan import resolve_plan
from let_titan.preflight.findings import vocabulary_of
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.price import cost_of
from let_titan.preflight.student import whole_student
from let_titan.preflight.teacher import price_teacher
from let_titan.preflight.units import gib
from let_titan.preflight.world import fake_world

RESULTS = Path(__file__).parent / "results"
MEASURED = ("overhead", "gpu-*/overhead")
"""Below RESULTS, where scripts/bench_overhead.py and scripts/gpu_check.sh write."""
CONFIG = Path(__file__).parents[1] / "train_configs" / "let_7b.toml"
"""Its batch, s_stop (15 % of the steps) and layout hold where nothing else is said."""

SMOLLM, LLAMA_1B, LLAMA_8B = (
    "HuggingFaceTB/SmolLM-135M",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.1-8B",
)
STUDENTS = ("350M", "1.4B", "3B", "7B", "70B")
LENGTHS = (2048, 4096, 8192, 16384, 32768)
RANKS = (8, 32, 256)
DEPTHS = (1, 2, 4, 8)
READERS = {"owner": "the aligned block's rank", "all": "all, each its share"}
"""Of teacher.pipeline: who reads for the teacher."""

Row = dict[str, Any]


def priced(
    student: str,
    teacher: str,
    seq_len: int = 2048,
    ranks: int = 256,
    readers: str = "owner",
    **keys: int,
) -> Row:
    """Prices a run of ``student`` under ``teacher``; ``readers`` is teacher.pipeline, ``keys`` are
    of [parallelism]."""
    args = ["--job.config_file", str(CONFIG), "--model.flavor", student]
    args += ["--teacher.checkpoint", teacher, "--model.hf_assets_path", f"assets/hf/{teacher}"]
    args += ["--training.seq_len", str(seq_len), "--training.local_batch_size", "64"]
    args += ["--teacher.pipeline", readers]
    for name, value in keys.items():
        args += [f"--parallelism.{name}", str(value)]
    config = LetConfigManager().parse_args(args)
    plan = resolve_plan(config)
    built = whole_student(config, vocabulary_of(config))
    with fake_world(config, ranks) as dims:
        its = price_teacher(config, plan, dims)
    flops = its.description.flops_per_token
    cost = cost_of(config, ranks, plan, GPUS["a100"], built, flops)
    return {
        "student": student,
        "student_parameters": built.parameters,
        "teacher": teacher.rpartition("/")[2],
        "seq_len": seq_len,
        "ranks": ranks,
        "readers": readers,
        **keys,
        "flops_ratio": cost.teacher_flops / cost.student_flops,
        "teacher_times": cost.teacher_times,
        "overhead_in_let_phase": cost.overhead_in_let_phase,
        "overhead_over_run": cost.overhead_over_run,
        "placement": its.description.placement,
        "teacher_bytes_per_gpu": its.bytes_per_gpu,
    }


def by_size() -> list[Row]:
    return [priced(s, t) for s in tqdm(STUDENTS) for t in (SMOLLM, LLAMA_1B, LLAMA_8B)]


def by_length() -> list[Row]:
    """SmolLM is not here: its context ends at 2,048."""
    pairs = (("7B", LLAMA_1B), ("70B", LLAMA_8B))
    return [priced(s, t, n) for s, t in tqdm(pairs) for n in LENGTHS]


def by_ranks() -> list[Row]:
    pairs = (("7B", LLAMA_1B), ("70B", LLAMA_8B))
    return [priced(s, t, ranks=n) for s, t in tqdm(pairs) for n in RANKS]


def by_depth() -> list[Row]:
    """The pipeline's ranks wait for the one that has the teacher, or share its rows."""
    found = [(t, r, p) for t in (LLAMA_1B, LLAMA_8B) for r in READERS for p in DEPTHS]
    shape = {"tensor_parallel_degree": 8, "pipeline_parallel_microbatch_size": 2}
    return [
        priced("70B", t, readers=r, **shape, pipeline_parallel_degree=p)
        for t, r, p in tqdm(found)
        if (r, p) != ("all", 1)
    ]


def measured(results_folder: Path) -> list[Row]:
    """What scripts/bench_overhead.py found, beside what the same model of cost says of it.

    "phase" is the teacher's time over the baseline's step; "step" is by how much LET's step is
    longer than the baseline's, "within" than its own after the teacher left (less what happens to
    the baseline's meanwhile): medians of the rounds with the smallest and the largest.
    """
    rows = []
    found = (results_folder.glob(f"{folder}/*/results.json") for folder in MEASURED)
    for path in sorted(chain(*found)):
        results = json.loads(path.read_text())
        let, baseline = (results["arms"][arm]["with_teacher"] for arm in ("LET", "baseline"))
        ratio, within = let["tokens_per_s_ratio"], results["arms"]["LET"]["within_run"]
        rows.append(
            {
                "name": path.parent.name,
                "folder": str(path.parent.relative_to(results_folder)),
                "rounds": results["rounds"],
                "predicted": results["teacher"]["flops_per_token"]
                / results["student_flops_per_token"],
                "phase": let["phases"]["teacher"] / baseline["step_s"],
                "step": [1 / ratio[key] - 1 for key in ("median", "max", "min")],
                "within": [1 / within[key] - 1 for key in ("median", "max", "min")],
            }
        )
    return rows


def report(results: dict[str, list[Row]]) -> str:
    """Returns report.md."""
    lines = [
        "# What LET costs at other sizes",
        "",
        "Made by `python recipes/scaling.py`. Predicted, by preflight's model: the FLOPs of both "
        "models at one utilisation, and who waits for whom. Overheads are of the student's time "
        "while the teacher is there, and over a run whose s_stop is 15 % of its steps; both are "
        "floors.",
        "",
        "![Overhead by student, by sequence and by the pipeline's ranks](overhead.png)",
        "",
    ]
    for title, name, columns in TABLES:
        lines += [f"## {title}", "", *table(results[name], columns), ""]
    lines += ["## Against measurements", ""]
    if not results["measured"]:
        return "\n".join([*lines, "There are none in recipes/results/.", ""])
    lines += [
        "| measured in | rounds | predicted | teacher's phase | whole step (of the rounds) | "
        "within its run |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in results["measured"]:
        lines.append(
            f"| [{row['name']}](../{row['folder']}/report.md) | {row['rounds']} "
            f"| {row['predicted']:.1%} | {row['phase']:.1%} "
            f"| {between(*row['step'])} | {between(*row['within'])} |"
        )
    return "\n".join([*lines, ""])


def between(median: float, low: float, high: float) -> str:
    return f"{median:+.1%} ({low:+.1%} to {high:+.1%})"


COLUMNS = {
    "student": lambda row: row["student"],
    "teacher": lambda row: row["teacher"],
    "tokens a sequence": lambda row: f"{row['seq_len']:,}",
    "GPUs": lambda row: f"{row['ranks']}",
    "pipeline's ranks": lambda row: f"{row['pipeline_parallel_degree']}",
    "who reads for the teacher": lambda row: READERS[row["readers"]],
    "with the teacher": lambda row: f"{row['overhead_in_let_phase']:.1%}",
    "over the run": lambda row: f"{row['overhead_over_run']:.1%}",
    "teacher on a GPU": lambda row: f"{gib(row['teacher_bytes_per_gpu'])}, {row['placement']}",
}
BOTH = ("with the teacher", "over the run")
TABLES = (
    ("By student and teacher (2,048 tokens)", "by_size", ("student", "teacher", *BOTH)),
    ("By sequence", "by_length", ("student", "teacher", "tokens a sequence", *BOTH)),
    ("By ranks of FSDP2", "by_ranks", ("student", "teacher", "GPUs", *BOTH, "teacher on a GPU")),
    (
        "By the pipeline's ranks (TP 8, 256 GPUs)",
        "by_depth",
        (
            "student",
            "teacher",
            "who reads for the teacher",
            "pipeline's ranks",
            *BOTH,
            "teacher on a GPU",
        ),
    ),
)


def table(rows: list[Row], columns: tuple[str, ...]) -> list[str]:
    words = ("student", "teacher", "who reads for the teacher")
    rule = "".join("---|" if name in words else "--:|" for name in columns)
    lines = [f"| {' | '.join(columns)} |", f"|{rule}"]
    return lines + [f"| {' | '.join(COLUMNS[name](row) for name in columns)} |" for row in rows]


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument(
        "--out", type=Path, default=RESULTS / "scaling", help="folder of the results"
    )
    own = flags.parse_args(args)
    results = {
        "by_size": by_size(),
        "by_length": by_length(),
        "by_ranks": by_ranks(),
        "by_depth": by_depth(),
        "measured": measured(RESULTS),
    }
    own.out.mkdir(parents=True, exist_ok=True)
    (own.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (own.out / "report.md").write_text(report(results))
    draw(results, own.out / "overhead.png")


if __name__ == "__main__":
    main()
