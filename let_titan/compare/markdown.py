"""The comparison as Markdown."""

import os
import shlex
from typing import Any

from let_titan.compare.caveats import exit_state
from let_titan.compare.phases import FIGURES, Figure
from let_titan.compare.result import ArmResult, Comparison
from let_titan.compare.text import (
    METHOD,
    SCORE_HEADER,
    accuracy_sentence,
    cost_rows,
    factor,
    hours_name,
    interval,
    markdown_table,
    score_rows,
    show,
    verdict,
)
from let_titan.runs import Run

SHARED = {
    "student": "config.model.flavor",
    "init_scheme": "config.model.init_scheme",
    "parameters in the blocks": "parameters.blocks",
    "parameters in total": "parameters.total",
    "steps": "config.training.steps",
    "tokens per step": "tokens_per_step",
    "sequence length": "config.training.seq_len",
    "learning rate": "config.optimizer.lr",
    "device": "hardware.device",
    "device name": "hardware.device_name",
    "CPU": "hardware.cpu",
    "torch": "versions.torch",
    "torchtitan": "versions.torchtitan",
    "git commit": "git_commit",
}
"""Facts of the baseline's first run; what others do differently stands elsewhere."""

EACH = {
    "seed": "config.debug.seed",
    "devices": "hardware.world_size",
    "steps done": "step",
    "tokens": "tokens",
    "wall time, s": "elapsed_s",
    "student FLOPs": "student_flops",
    "teacher FLOPs": "teacher_flops",
}
"""Facts of each run: of its summary, or of its last train line."""

RUN_HEADER = ["run", *EACH, "exit state", "last validation loss", "clock"]

PHASE_HEADER = ["phase", "tokens/s (to baseline)", "memory, GiB (to baseline)"]


def loss_rows(result: ArmResult) -> list[list[str]]:
    """Returns (step, baseline, run, run - baseline) for every common evaluation."""
    return [
        [
            f"{row.step:,}",
            f"{row.baseline.value:.4f}",
            f"{row.run.value:.4f}",
            interval(row.difference, "{:+.4f}"),
        ]
        for row in result.rows
    ]


def phase_rows(comparison: Comparison) -> list[list[str]]:
    """Returns (arm and phase, tokens/s, memory), each figure with its ratio to the baseline.

    Nothing where no arm was timed: the baseline's figures alone compare nothing.
    """
    if not comparison.timed:
        return []
    whole = comparison.baseline_phases.get("whole run")
    phases = {"baseline": whole} if whole else {}
    for result in comparison.results:
        phases |= {f"{result.name}, {phase}": f for phase, f in result.phases.items()}
    return [
        [name, *(phase_cell(figures[key]) for key in FIGURES)] for name, figures in phases.items()
    ]


def phase_cell(figure: Figure) -> str:
    value = show(figure.mean.value)
    return value if figure.to_baseline is None else f"{value}, {factor(figure.to_baseline)}"


def shared_rows(comparison: Comparison) -> list[list[Any]]:
    """Returns (fact, value) of what the runs have in common."""
    first = comparison.baseline.runs[0]
    return [
        [name, value] for name, path in SHARED.items() if (value := first.fact(path)) is not None
    ]


def run_rows(comparison: Comparison) -> list[list[Any]]:
    """Returns a row of ``RUN_HEADER`` for every run."""
    return [
        [
            arm.name,
            *(run.train[-1].get(key, run.fact(key)) for key in EACH.values()),
            exit_state(run),
            f"{run.curve[-1][1]:.4f}",
            "left out" if id(run) in comparison.untimed else "counts",
        ]
        for arm in (comparison.baseline, *comparison.arms)
        for run in arm.runs
    ]


def every_run(comparison: Comparison) -> list[Run]:
    return [run for arm in (comparison.baseline, *comparison.arms) for run in arm.runs]


def command(run: Run) -> str:
    """Returns the command that repeats ``run`` from the current folder."""
    path = run.fact("config.job.config_file") or "CONFIG.toml"
    path = os.path.relpath(path) if os.path.isabs(path) else path
    return f"{launcher(run)} -m let_titan.train --job.config_file {shlex.quote(path)}"


def launcher(run: Run) -> str:
    """Returns torchrun as it starts ``run``, on every node if it had several.

    Old summaries do not say how many processes a node had: theirs is taken for one node.
    """
    world = run.fact("hardware.world_size") or 1
    per_node = run.fact("hardware.local_world_size") or world
    if per_node == world:
        return f"torchrun --nproc_per_node={world}"
    return (
        f"torchrun --nnodes={world // per_node} --nproc_per_node={per_node} "
        "--rdzv_backend=c10d --rdzv_endpoint=HEAD:29500"
    )


def heading(comparison: Comparison) -> str:
    """Returns what stands above the verdicts; distilled arms alone are not called LET."""
    if all(arm.is_distilled for arm in comparison.arms):
        return f"{', '.join(arm.name for arm in comparison.arms)} against the baseline"
    return "Late-to-Early Training against its baseline"


def twins_sentence(comparison: Comparison) -> str:
    """Says whether anything but LET itself tells the arms apart."""
    if not comparison.unintended:
        return "Arms and baseline differ in let and teacher alone."
    return f"**Not twins**: they also differ in {', '.join(comparison.unintended)}."


def arm_section(result: ArmResult, hours: str) -> list[str]:
    """Returns the losses and the costs of one arm."""
    parts = [
        f"## {result.name}: validation loss (nats per token)",
        markdown_table(["step", "baseline", result.name, "difference"], loss_rows(result)),
    ]
    if result.target is not None:
        parts += [
            f"Spent until {result.target.loss:.4f}, the baseline's loss at step "
            f"{result.rows[-1].step:,} ({result.target.reached} of {result.target.n} reached it):",
            markdown_table(
                ["", "baseline", result.name, "speed-up"], cost_rows(result.target, hours)
            ),
        ]
    if result.untimed:
        parts.append(f"{result.name}: {result.untimed}.")
    return parts


def score_section(result: ArmResult, hours: str, drawn: bool) -> list[str]:
    """Returns what one arm's checkpoints scored; nothing where they were not evaluated.

    Args:
        drawn: whether there is a chart of the accuracies.
    """
    if not (rows := score_rows(result)):
        return []
    parts = [
        f"## {result.name}: tasks and perplexity",
        markdown_table(SCORE_HEADER, [list(row) for row in rows]),
    ]
    if result.accuracy:
        costs = cost_rows(result.accuracy, hours)
        parts += [
            *(["![Task accuracy by step](accuracy.png)"] if drawn else []),
            accuracy_sentence(result),
            markdown_table(["", "baseline", result.name, "speed-up"], costs),
        ]
    return parts


def phase_section(comparison: Comparison) -> list[str]:
    """Returns throughput and memory; nothing where no arm was timed."""
    if not comparison.timed:
        return []
    return [
        "## Throughput and memory",
        markdown_table(PHASE_HEADER, phase_rows(comparison)),
        "Memory is the peak on an accelerator, the resident set on a CPU.",
        "![Throughput and memory by step](costs.png)",
    ]


def report(comparison: Comparison, note: str | None = None) -> str:
    """Returns report.md; ``note`` stands above all else."""
    hours = hours_name(comparison.baseline)
    header = ["", comparison.baseline.name, *(arm.name for arm in comparison.arms)]
    scores = [
        part
        for result in comparison.results
        for part in score_section(result, hours, comparison.scored)
    ]
    commands = dict.fromkeys(command(run) for run in every_run(comparison))
    sections = [
        *([f"**{note}**"] if note else []),
        f"# {heading(comparison)}",
        *(verdict(result) for result in comparison.results),
        "![Validation loss by step](validation_loss.png)",
        "![Speed-up by loss reached](speedup.png)",
        *(part for result in comparison.results for part in arm_section(result, hours)),
        *scores,
        *phase_section(comparison),
        "![Weight, cosine and gradient norm by step](alignment.png)",
        "## What was set differently",
        markdown_table(header, [[key, *values] for key, values in comparison.settings]),
        twins_sentence(comparison),
        "## The runs",
        markdown_table(RUN_HEADER, run_rows(comparison)),
        markdown_table(["shared", "value"], shared_rows(comparison)),
        "```sh\n" + "\n".join(commands) + "\n```",
        "Options from the command line are not in them; the settings above include them.",
        "## How it was computed",
        METHOD,
    ]
    return "\n\n".join(sections) + "\n"
