"""The overhead's report in Markdown, of results.json alone."""

from typing import Any

from overhead.clock import PHASES
from overhead.result import HALVES

TITLES = {"with_teacher": "While LET has its teacher", "after": "After it"}


def as_markdown(results: dict[str, Any]) -> str:
    """Returns report.md of one setting on one machine."""
    hardware, arms = results["hardware"], results["arms"]
    device = hardware.get("device_name") or (
        f"{hardware['cpu']}, {hardware['cpu_threads']} thread(s) of torch"
    )
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items() if v != "not installed")
    teacher, parameters = results["teacher"], results["parameters"]
    student_flops, tokens = results["student_flops_per_token"], results["tokens_per_step"]
    teacher_flops = teacher["flops_per_token"]
    lines = [
        f"# What LET costs: {results['setting']}",
        "",
        f"`python scripts/bench_overhead.py {results['setting']}` on {device}; {versions}.",
        "",
        f"Student: {parameters['total'] / 1e6:,.1f}M parameters, "
        f"{parameters['blocks'] / 1e6:,.1f}M of them in its blocks, "
        f"{student_flops / 1e6:,.0f} MFLOP a token forward and backward. "
        f"Teacher: {teacher['parameters'] / 1e6:,.1f}M in its blocks, random weights, "
        f"{teacher_flops / 1e6:,.1f} MFLOP a token forward, {teacher_flops / student_flops:.2%} of "
        "the student's; attention is counted in both.",
        "",
        f"{tokens:,} tokens a step; {results['rounds']} rounds of the arms in turn, "
        f"{results['steps'] // 2} steps a half, of which the first {results['warmup']} and the "
        "last are left out. Each round begins with another arm. Ratios are to the baseline of the "
        "same round and half: the median of the rounds, in brackets the smallest and the largest.",
        "",
    ]
    for half in HALVES:
        lines += [f"## {TITLES[half]}", "", *ratios(arms, half), "", *phase_table(arms, half), ""]
    lines += ["## Within each run", "", *within_runs(arms), ""]
    lines += [
        "RKD keeps its teacher to the end; LET and SALT lose it after the first half. LET_writing "
        "has its teacher's states written to `teacher.cache`, where LET_reading finds them: it "
        "runs no teacher. Floor: the student's FLOPs over those of both models, that is, the ratio "
        f"at equal MFU. MFU is of {results['peak_flops'] / 1e12:.3g} TFLOP/s "
        f"({peak_source(hardware)}); the teacher's is over the phase "
        '"teacher", which also holds what is done to its states. Of distillation '
        "the teacher's LM head is counted, but runs within forward and backward.",
        "",
        "Phases: backward begins with the NLL and holds the alignment's gradient; optimizer begins "
        "with clipping; rest lies between the marks. The quickest tenth: what a tenth of the steps "
        "of all rounds stay below, which a machine that others use, too, disturbs least. Peak "
        "memory is "
        f"{memory_source(hardware)}.",
        "",
    ]
    return "\n".join(lines)


def ratios(arms: dict[str, Any], half: str) -> list[str]:
    rows = [
        "| arm | tokens/s | floor | of the floor | peak memory | student's MFU | teacher's MFU |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, found in arms.items():
        part = found[half]
        floor = found["floor"] if part["teacher_mfu"] else 1.0  # none runs, or from a cache
        rate = part["tokens_per_s_ratio"]
        mfu = f"{part['teacher_mfu']:.1%}" if part["teacher_mfu"] else "-"  # of a model that runs
        rows.append(
            f"| {arm} | {between(rate)} | {floor:.3f} | {rate['median'] / floor:.3f} "
            f"| {between(part['peak_ratio'])} | {part['student_mfu']:.1%} | {mfu} |"
        )
    return rows


def within_runs(arms: dict[str, Any]) -> list[str]:
    rows = [
        "Tokens/s with the teacher over tokens/s of the same process after it, and that over the "
        "baseline's two halves: what differs from process to process cancels.",
        "",
        "| arm | with the teacher | floor | of the floor |",
        "|---|---|---|---|",
    ]
    for arm, found in arms.items():
        if "within_run" not in found:
            continue
        taught = found["with_teacher"]["teacher_mfu"]
        floor, rate = found["floor"] if taught else 1.0, found["within_run"]
        rows.append(f"| {arm} | {between(rate)} | {floor:.3f} | {rate['median'] / floor:.3f} |")
    return rows


def between(value: dict[str, float]) -> str:
    return f"{value['median']:.3f} ({value['min']:.3f} to {value['max']:.3f})"


def phase_table(arms: dict[str, Any], half: str) -> list[str]:
    rows = [
        f"| ms a step | {' | '.join(PHASES)} | step | the quickest tenth | of the baseline's |",
        "|---" * (len(PHASES) + 4) + "|",
    ]
    for arm, found in arms.items():
        part = found[half]
        cells = " | ".join(f"{1e3 * part['phases'][phase]:.1f}" for phase in PHASES)
        quick = part["quick_step_s"]
        rows.append(
            f"| {arm} | {cells} | {1e3 * part['step_s']:.1f} | {1e3 * quick:.1f} "
            f"| {quick / arms['baseline'][half]['quick_step_s']:.3f} |"
        )
    return rows


def peak_source(hardware: dict[str, Any]) -> str:
    if "device_name" in hardware:
        return "torchtitan's figure for this GPU in bfloat16"
    return "the best 1024 x 1024 fp32 product in the run's own process"


def memory_source(hardware: dict[str, Any]) -> str:
    if "device_name" in hardware:
        return "what torch had allocated"
    return "the process's resident set, its program and libraries included"
