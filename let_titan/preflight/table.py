"""Preflight's report as a table for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from let_titan.preflight.examination import Report
from let_titan.preflight.memory import RESERVED_OVER_PREDICTED
from let_titan.preflight.units import gflop, gib

MEMORY_PARTS = (
    "weights",
    "gradients",
    "adam",
    "buffers",
    "buckets",
    "activations",
    "teacher",
    "total",
)


def show(report: Report) -> None:
    """Prints the report on stdout; mistakes are the caller's."""
    console = Console(highlight=False)
    if report.price is not None:
        table = Table(show_header=False, title=" on ".join(headline(report)))
        for section, rows in sections(report.price).items():
            table.add_section()
            for i, (name, value) in enumerate(rows):
                table.add_row(section if i == 0 else "", name, value)
        console.print(table)
    for title, sentences in (
        ("Warning", report.findings.warnings),
        ("Not checked here", report.findings.unchecked),
    ):
        for sentence in sentences:
            console.print(f"{title}: {sentence}", markup=False, soft_wrap=True)


def headline(report: Report) -> tuple[str, str]:
    return report.run["flavor"], f"{report.run['world_size']} x {report.run['gpu']}"


def sections(price: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    found = {
        "student": student_rows(price["student"]),
        "teacher": teacher_rows(price["teacher"], price["let"], price["distill"]),
        "its states' cache": cache_rows(price["teacher_cache"]),
        "its reading": reading_rows(price["teacher_reading"]),
        "run": batch_rows(price["batch"]),
        "memory per GPU": memory_rows(
            price["memory_bytes_per_gpu"], price["memory_bytes_by_pipeline_rank"]
        ),
        "FLOPs": flops_rows(price["cost"]),
        "predicted": predicted_rows(price["cost"]),
        "disk": checkpoint_rows(price["checkpoints"]),
    }
    return {title: rows for title, rows in found.items() if rows}


def vocabulary_text(ids: int, rows: int) -> str:
    return f"{ids:,}" if rows == ids else f"{ids:,}, padded to {rows:,} rows"


def student_rows(student: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{student['parameters']:,}"),
        ("of them in blocks", f"{student['block_parameters']:,}"),
        ("vocabulary", vocabulary_text(student["vocabulary"], student["embedding_rows"])),
    ]


def teacher_rows(
    teacher: dict[str, Any] | None, let: dict[str, Any] | None, distill: dict[str, Any] | None
) -> list[tuple[str, str]]:
    if teacher is None or let is None:
        return []
    return [
        ("checkpoint", teacher["name"]),
        ("shape", f"{teacher['n_blocks']} blocks of width {teacher['width']}"),
        ("parameters in use", f"{teacher['parameters']:,} in {teacher['dtype']}"),
        ("placement", teacher["placement"]),
        alignment_row(let) if distill is None else distillation_row(distill),
        ("leaves after step", f"{let['s_stop']:,}"),
    ]


def alignment_row(let: dict[str, Any]) -> tuple[str, str]:
    pairs = ", ".join(f"{pair['layer']} -> block {pair['block']}" for pair in let["pairs"])
    return "alignment", f"{pairs}, lambda {let['lambda_0']}, {let['schedule']}"


def distillation_row(distill: dict[str, Any]) -> tuple[str, str]:
    pool = distill["select_of"]
    chosen = f", of {pool} sequences one" if pool > 1 else ""
    mixture = f"{distill['direction']} KL of weight {distill['weight']}"
    return "distillation", f"{distill['method'].upper()}{chosen}, {mixture}"


def reading_rows(reading: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a teacher with a tokenizer of its own reads."""
    if reading is None:
        return []
    padding = f"{reading['padding_share']:.1%} of it padding"
    return [
        ("measured on", f"{reading['tokens']:,} tokens of the student's"),
        ("reads for a token", f"{reading['positions_per_token']:.3f} of its own, {padding}"),
        ("tokens with a target", f"{reading['target_share']:.1%}"),
        ('"same" would need', reading["same_needs"] or "nothing: the tokenizers are one"),
    ]


def cache_rows(cache: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the states of teacher.cache take; prices are of the run that writes it."""
    if cache is None:
        return []
    return [
        ("bytes a token", f"{cache['bytes_per_token']:,}"),
        ("until s_stop", gib(cache["bytes"])),
        ("a later run reads", f"{gib(cache['bytes_read_per_s'])}/s, at most, and has no teacher"),
    ]


def batch_rows(batch: dict[str, int]) -> list[tuple[str, str]]:
    layout = f"{batch['data_parallel_replicate']} x {batch['data_parallel_shard']}"
    return [
        ("replicas x shards", layout),
        ("batch", f"{batch['local_batch_size']} a GPU, {batch['sequences_per_step']:,} in all"),
        ("accumulation", f"{batch['accumulation']:,}"),
        ("tokens per step", f"{batch['tokens_per_step']:,}"),
        ("steps", f"{batch['steps']:,}"),
        ("tokens", f"{batch['tokens']:,}"),
    ]


def memory_rows(memory: dict[str, Any], ranks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    rows = []
    least, most = RESERVED_OVER_PREDICTED
    notes = {
        "activations": " (estimated)",
        "total": f" of {gib(memory['of'])}; published runs reserved {least:.2f} to {most:.2f} "
        "times it",
    }
    if len(ranks) > 1:
        totals = ", ".join(gib(rank["total"]) for rank in ranks)
        rows.append(("pipeline rank", f"{ranks.index(memory)}, the fullest of {totals}"))
    for part in MEMORY_PARTS:
        if part == "buckets" and not memory[part]:
            continue  # only DDP has them
        rows.append((part, gib(memory[part]) + notes.get(part, "")))
    return rows


def flops_rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("a token", gflop(cost["flops_per_token_after"]))]
    if cost["overhead_in_let_phase"]:
        rows += [
            ("with the teacher", gflop(cost["flops_per_token_in_let_phase"])),
            ("overhead with it", f"{cost['overhead_in_let_phase']:.2%}, at least"),
            ("over the run", f"{cost['overhead_over_run']:.2%}, at least"),
        ]
        if cost["teacher_times"] > 1:
            rows.append(("its time counts", f"{cost['teacher_times']} times: other ranks wait"))
    return rows


def predicted_rows(cost: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("utilisation (MFU)", f"{cost['mfu_assumed']:.0%} assumed ({cost['mfu_source']})")]
    if cost["pipeline_bubble"]:
        rows.append(("pipeline's bubble", f"{cost['pipeline_bubble']:.1%} of a step"))
    if cost["overhead_in_let_phase"]:
        rows.append(("tokens/s with teacher", f"{cost['tokens_per_s_in_let_phase']:,.0f}"))
    return [
        *rows,
        ("tokens/s without", f"{cost['tokens_per_s_after']:,.0f}"),
        ("GPU-hours", f"{cost['gpu_hours']:,.0f} ({cost['hours']:,.1f} hours)"),
    ]


def checkpoint_rows(checkpoints: dict[str, int] | None) -> list[tuple[str, str]]:
    if checkpoints is None:
        return []
    return [
        ("a checkpoint", gib(checkpoints["bytes_each"])),
        ("all that are kept", gib(checkpoints["bytes_together"])),
    ]
