"""What a run leaves: metrics.jsonl, summary.json, TensorBoard."""

import json
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from let_titan.outcome import outcome
from let_titan.train import LetTrainer, run
from tests.run_files import line_of, read_summary
from tests.support import logged

TRAIN_KEYS = {
    *("step", "loss", "align_loss", "align_cosine", "lambda", "grad_norm", "lr", "tokens"),
    *("elapsed_s", "tokens_per_s", "memory_gib", "teacher_active"),
    *("student_flops", "teacher_flops"),
}
VALIDATION_KEYS = {"step", "val_loss", "val_ppl", "val_bits_per_byte"}


def validated(lab, **changes):
    return {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__local_batch_size": 2,
        "validation__seq_len": 64,
        "validation__steps": 2,
        "validation__freq": 5,
        **changes,
    }


def leave(lab, let, **changes):
    """Trains as ``main`` does; returns (train lines, validation lines, summary)."""
    run(lab.config(let, **validated(lab, **changes)))
    torch.distributed.init_process_group("gloo")  # run() ends the world it was in
    folder = lab.folder / "run"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if "loss" in line]
    return train, [line for line in lines if "val_loss" in line], read_summary(folder)


def test_a_let_run(lab, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-the-test")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")  # told as the launcher says it
    train, validation, summary = leave(lab, {"s_stop": 3}, metrics__enable_tensorboard=True)
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert all(line.keys() == TRAIN_KEYS for line in train)
    assert [line["lambda"] for line in train] == pytest.approx([0.5, 1 / 3, 1 / 6, 0, 0, 0])
    assert [line["teacher_active"] for line in train] == [True] * 3 + [False] * 3
    for line in train:
        aligned = line["step"] <= 3
        assert (line["align_loss"] is not None) == (line["align_cosine"] is not None) == aligned
    tokens = [line["tokens"] for line in train]
    assert tokens == [256 * step for step in range(1, 7)]
    student, teacher = summary["student_flops_per_token"], summary["teacher"]["flops_per_token"]
    assert [line["student_flops"] for line in train] == [student * t for t in tokens]
    assert [line["teacher_flops"] for line in train] == [teacher * min(t, 768) for t in tokens]
    elapsed = [line["elapsed_s"] for line in train]
    assert elapsed == sorted(elapsed) and elapsed[0] > 0
    assert all(line["tokens_per_s"] > 0 and 0.1 < line["memory_gib"] < 20 for line in train)

    assert [line["step"] for line in validation] == [0, 3, 5, 6]
    for line in validation:
        assert line.keys() == VALIDATION_KEYS
        assert line["val_ppl"] == pytest.approx(math.exp(line["val_loss"]))

    assert summary["exit_state"] == "completed"
    assert summary["config"]["let"]["s_stop"] == 3
    assert summary["let_plan"]["pairs"] == [{"layer": "last", "block": 2, "weight": 1.0}]
    assert summary["teacher"]["n_blocks"] == 3 and summary["teacher"]["width"] == 48
    assert summary["teacher"]["commit"] is None  # it is there, and null for a folder
    # 4 blocks of 4 * 64^2 attention, 3 * 64 * 192 FFN and two norms; embedding, output, last norm
    blocks = 4 * (4 * 64**2 + 3 * 64 * 192 + 2 * 64)
    assert summary["parameters"] == {"blocks": blocks, "total": blocks + 2 * 320 * 64 + 64}
    assert summary["special_tokens"] == {"add_bos": True, "bos_id": 0, "add_eos": True, "eos_id": 1}
    assert len(summary["tokenizer"]["sha256"]) == 64
    assert set(summary["data"]["files"]) == {"train.jsonl"}
    assert summary["final_val_loss"] == validation[-1]["val_loss"]
    assert summary["best_val_loss"] == min(line["val_loss"] for line in validation)
    assert summary["wall_time_s"] == train[-1]["elapsed_s"]
    assert summary["versions"]["torchtitan"] == "0.2.2"
    hardware = summary["hardware"]
    assert hardware["device"] == "cpu" and hardware["world_size"] == 1
    assert hardware["local_world_size"] == 3
    for phase in ("let_phase", "after"):
        assert summary["throughput"][phase].keys() == {"tokens_per_s", "peak_memory_gib"}
    for file in lab.folder.rglob("*"):
        assert not file.is_file() or b"secret-of-the-test" not in file.read_bytes(), file

    events = EventAccumulator(str(next((lab.folder / "run" / "tb").iterdir())))
    events.Reload()
    for tag, wanted in (("let/lambda", "lambda"), ("let/align_cosine", "align_cosine")):
        found = [event.value for event in events.Scalars(tag)]
        assert found == pytest.approx([x[wanted] for x in train if x[wanted] is not None])


def test_a_baseline(lab):
    train, validation, summary = leave(lab, None)
    for line in train:
        assert line.keys() == TRAIN_KEYS
        assert line["align_loss"] is line["align_cosine"] is None
        assert line["lambda"] == line["teacher_flops"] == 0 and line["teacher_active"] is False
    assert [line["step"] for line in validation] == [0, 5, 6]
    assert summary["teacher"] is summary["let_plan"] is None
    assert summary["throughput"]["let_phase"] is None


def test_a_window_that_s_stop_or_the_end_cuts_short_tells_the_seconds_of_its_steps(lab):
    """torchtitan divides by log_freq; tokens/s, which it counts, say how long a step took."""
    changes = {"metrics__log_freq": 5, "training__global_batch_size": 8}
    trainer = LetTrainer(lab.config({"s_stop": 3}, **changes))
    with logged(trainer) as lines:
        trainer.train()
    trainer.close()
    assert [line["step"] for line in lines] == [1, 3, 5, 6]
    for line in lines:
        tokens = line["time_metrics/end_to_end(s)"] * line["throughput(tps)"]
        assert tokens == pytest.approx(trainer.tokens_per_step, rel=0.5)  # not 2/5, 1/5


def test_outcome_leaves_the_first_window_after_each_start_out():
    cost = {"memory_gib": 1.0, "teacher_active": False}
    slow, fast = {**cost, "tokens_per_s": 1.0}, {**cost, "tokens_per_s": 10.0}
    lines = [line_of(1, **slow), line_of(10, **fast), line_of(20, **slow), line_of(30, **fast)]
    assert outcome(lines, [0, 10])["throughput"]["after"]["tokens_per_s"] == pytest.approx(10)
    assert outcome(lines, [0, 15])["throughput"]["after"]["tokens_per_s"] == pytest.approx(10)
    assert outcome(lines, [0])["throughput"]["after"]["tokens_per_s"] == pytest.approx(3 / 1.2)
    assert outcome(lines, [0, 1, 10, 20])["throughput"]["after"] is None


def test_outcome_leaves_step_one_out_and_averages_rates_over_equal_windows():
    cost = {"memory_gib": 1.0, "teacher_active": True}
    lines = [
        line_of(1, tokens_per_s=1.0, **{**cost, "memory_gib": 9.0}),
        line_of(2, tokens_per_s=10.0, **cost),
        line_of(3, tokens_per_s=30.0, **{**cost, "memory_gib": 2.0}),
    ]
    found = outcome(lines)["throughput"]
    assert found["let_phase"] == {"tokens_per_s": pytest.approx(15.0), "peak_memory_gib": 2.0}
    assert found["after"] is None
