"""Runs made by hand, whose figures are known."""

import json
from pathlib import Path
from typing import Any

from let_titan.runs import Run

TOKENS, STUDENT, TEACHER = 1000, 100.0, 25.0  # tokens and FLOPs a step
SECONDS, DEVICES = 2.0, 2  # a step, and in the world
S_STOP = 20

BASELINE = {0: 11.0, 10: 9.0, 20: 8.0, 30: 7.5, 40: 7.0}
BETTER = {0: 11.0, 10: 9.5, 20: 8.0, 30: 7.2, 40: 6.8}
WORSE = {0: 11.0, 10: 9.5, 20: 8.2, 30: 7.7, 40: 7.05}


def train_line(step: int, let: bool) -> dict[str, Any]:
    on = let and step <= S_STOP
    return {
        "step": step,
        "loss": 7.0,
        "align_loss": -0.5 if on else None,
        "align_cosine": 0.5 if on else None,
        "lambda": 0.1 if on else 0.0,
        "grad_norm": 1.0,
        "tokens": step * TOKENS,
        "elapsed_s": step * SECONDS,
        "tokens_per_s": 450.0 if on else 500.0,
        "memory_gib": 3.0 if on else 2.0,
        "teacher_active": on,
        "student_flops": step * STUDENT,
        "teacher_flops": min(step, S_STOP) * TEACHER if let else 0,
    }


def summary(let: bool, seed: int) -> dict[str, Any]:
    plan = {"pairs": [{"layer": "last", "block": 2, "weight": 1.0}], "lambda_0": 0.1}
    return {
        "config": {
            "job": {"config_file": f"configs/{'let' if let else 'baseline'}.toml"},
            "model": {"flavor": "demo", "init_scheme": "llama"},
            "let": {"enable": let, "k": 2},
            "teacher": {"checkpoint": "a/teacher" if let else ""},
            "optimizer": {"lr": 1e-3},
            "training": {"steps": 40, "seq_len": 64, "dataloader": {"num_workers": 0}},
            "validation": {"steps": 4, "local_batch_size": 8, "seq_len": 64},
            "debug": {"seed": seed},
        },
        "hardware": {"device": "cpu", "world_size": DEVICES, "cpu_threads": 1},
        "versions": {"torchtitan": "0.2.2"},
        "git_commit": None,
        "parameters": {"total": 30_000_000, "blocks": 4_800_000},
        "let_plan": {**plan, "s_stop": S_STOP, "schedule": "linear"} if let else None,
        "data": {"sha256_of_names_and_sizes": "d"},
        "validation_data": {"sha256_of_names_and_sizes": "v"},
        "tokenizer": {"sha256": "t"},
        "tokens_per_step": TOKENS,
        "exit_state": "completed",
    }


def write_run(folder: Path, let: bool, losses: dict[int, float], seed: int = 7) -> Path:
    """Writes a run whose train lines stand at every tenth step."""
    lines = [train_line(step, let) for step in range(10, max(losses) + 1, 10)]
    lines += [{"step": step, "val_loss": loss} for step, loss in losses.items()]
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda x: x["step"]))
    (folder / "metrics.jsonl").write_text(text)
    (folder / "summary.json").write_text(json.dumps(summary(let, seed)))
    return folder


def evaluate(folder: Path, averages: dict[int, float]) -> None:
    """Leaves evaluations beside a run: two tasks whose mean is the average, and perplexities."""
    lines = [
        {
            "step": step,
            "tasks": {
                "piqa": {"acc": 0.9, "acc_norm": value - 0.1, "metric": "acc_norm"},
                "winogrande": {"acc": value + 0.1, "metric": "acc"},
            },
            "average": value,
            "perplexity": {"overall": {"per_token": 20.0, "bits_per_byte": 2 - value}},
        }
        for step, value in averages.items()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "evaluations.jsonl").write_text(text)


def twins(tmp_path: Path, baseline: dict[int, float], let: dict[int, float]) -> tuple[Run, Run]:
    return (
        Run.load(write_run(tmp_path / "baseline", False, baseline)),
        Run.load(write_run(tmp_path / "let", True, let)),
    )


def shifted(losses: dict[int, float], by: float) -> dict[int, float]:
    """Returns ``losses`` with ``by`` added after step 0."""
    return {step: loss + by * (step > 0) for step, loss in losses.items()}


def seeds(tmp_path: Path, let: bool, *curves: dict[int, float], first: int = 0) -> list[Run]:
    """Returns a run a curve, of seeds ``first`` onwards."""
    name = "let" if let else "baseline"
    return [
        Run.load(write_run(tmp_path / f"{name}-seed{seed}", let, curve, seed))
        for seed, curve in enumerate(curves, start=first)
    ]
