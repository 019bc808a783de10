"""What a run leaves: metrics.jsonl, summary.json, TensorBoard."""

import json
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from let_titan.outcome import outcome
from let_titan.run.folder import RunFolder
from let_titan.run.record import MetricsFile
from let_titan.train import LetTrainer, run
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


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


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


def line(step, **more):
    return {"step": step, "loss": 1.0, "elapsed_s": 2.0 * step, **more}


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


def test_resume_cuts_what_lies_past_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 0, "val_loss": 3.0}, line(1), line(2), {"step": 2, "val_loss": 2.0}, line(3)]
    path.write_text("".join(json.dumps(item) + "\n" for item in lines) + '{"step": 4, "lo')
    file = MetricsFile(path, world_size=1)
    file.resume(2)
    assert file.lines() == lines[:3]  # step 2 is validated again
    metrics = dict.fromkeys(("loss_metrics/global_avg_loss", "throughput(tps)"), 1.0)
    file.log(metrics, 3)
    assert 4.0 < file.lines()[-1]["elapsed_s"] < 5.0  # the clock went on from step 2's


def test_the_clock_goes_on_from_the_checkpoint_not_from_the_last_line(tmp_path, monkeypatch):
    """Logged every 100th step and stopped after every 95th, a run has all its seconds."""
    now = [0.0]
    monkeypatch.setattr("let_titan.run.record.time.perf_counter", lambda: now[0])
    metrics = dict.fromkeys(("loss_metrics/global_avg_loss", "throughput(tps)"), 1.0)
    for start in (0, 95, 190, 285, 190):  # killed at last, and started again from step 190
        file = MetricsFile(tmp_path / "metrics.jsonl", world_size=1)
        file.resume(start)
        for step in range(start + 1, start + 96):
            now[0] += 1.0
            if step % 100 == 0:
                file.log(metrics, step)
        file.note_saved(step)
        now[0] += 1000.0  # in the queue
    assert [line["elapsed_s"] for line in file.lines()] == [100.0, 200.0]
    saved = (tmp_path / "clock.jsonl").read_text().splitlines()
    assert [json.loads(each)["elapsed_s"] for each in saved] == [95.0, 190.0, 285.0]


def begin(folder, step):
    RunFolder(folder, MetricsFile(folder / "metrics.jsonl", 1), {}).begin(step, None)


def test_a_fresh_start_keeps_an_earlier_run_together(tmp_path):
    """Unread: even a damaged file is only moved."""
    begin(tmp_path, 0)
    earlier = {"metrics": "damaged\n{}\n", "summary": "{", "evaluations": '{"step": 2}\n'}
    earlier["clock"] = '{"step": 2, "elapsed_s": 9.0}\n'
    names = {"metrics": "jsonl", "summary": "json", "evaluations": "jsonl", "clock": "jsonl"}
    for stem, text in earlier.items():
        (tmp_path / f"{stem}.{names[stem]}").write_text(text)
    begin(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert read_summary(tmp_path)["exit_state"] == "running"
    assert not (tmp_path / "evaluations.jsonl").exists()
    (kept,) = tmp_path.glob("metrics.*.jsonl")  # an earlier run's lines are not thrown away
    number = kept.name.split(".")[1]
    for stem, text in earlier.items():
        assert (tmp_path / f"{stem}.{number}.{names[stem]}").read_text() == text


def test_a_resume_leaves_later_steps_scores_behind(tmp_path):
    begin(tmp_path, 0)
    scores = [{"step": 2, "average": 0.5}, {"step": 4, "average": 0.6}, {"step": 4, "x": 1}]
    path = tmp_path / "evaluations.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in scores))
    begin(tmp_path, 4)
    assert [json.loads(text) for text in path.read_text().splitlines()] == scores
    begin(tmp_path, 3)
    assert [json.loads(text) for text in path.read_text().splitlines()] == scores[:1]


def test_every_start_is_kept_until_a_run_begins_anew(tmp_path):
    for step, starts in ((0, [0]), (4, [0, 4]), (6, [0, 4, 6]), (4, [0, 4]), (0, [0])):
        RunFolder(tmp_path, MetricsFile(tmp_path / "metrics.jsonl", 2), {}).begin(step, None)
        found = [(each["step"], each["world_size"]) for each in read_summary(tmp_path)["starts"]]
        assert found == [(start, 2) for start in starts]


def test_a_summary_that_is_lost_is_missed_until_the_run_begins_anew(tmp_path):
    """What it knew of starts and teacher is not known: not that there were none."""

    def found():
        summary = read_summary(tmp_path)
        return summary.get("lost_before"), summary["teacher"]

    def lose(step, teacher):
        (tmp_path / "summary.json").unlink()
        RunFolder(tmp_path, MetricsFile(tmp_path / "metrics.jsonl", 1), {}).begin(step, teacher)
        return found()

    taught(tmp_path, 0, COMPUTING, 4)
    assert found() == (None, COMPUTING)
    assert lose(3, COMPUTING) == (3, COMPUTING)
    assert lose(3, None) == (3, {"unknown": True})
    begin(tmp_path, 4)
    assert found() == (3, {"unknown": True})
    taught(tmp_path, 3, COMPUTING, 4)  # it reads again
    assert found() == (3, COMPUTING)
    begin(tmp_path, 0)
    assert found() == (None, None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "val_loss": 1.0}\n')
    assert lose(3, None) == (3, None)  # a baseline
    for step in (0, 2):  # a start, and one from an initial checkpoint that leaves nothing behind
        assert lose(step, None) == (None, None)


def test_what_validation_read_is_known_after_a_start_without(tmp_path):
    """And how: a later start, validated again, is compared with both."""
    for step, read, known in (
        (0, ("a", 64), ("a", 64)),
        (4, (None, 2048), ("a", 64)),
        (5, (None, 2048), ("a", 64)),
        (6, ("b", 32), ("b", 32)),
        (0, (None, 2048), (None, 2048)),
    ):
        validation = {"enable": read[0] is not None, "seq_len": read[1]}
        facts = {"validation_data": read[0], "config": {"job": {}, "validation": validation}}
        RunFolder(tmp_path, MetricsFile(tmp_path / "metrics.jsonl", 1), facts).begin(step, None)
        summary = read_summary(tmp_path)
        kept = {"enable": read[0] is not None, "seq_len": known[1]}
        assert summary["validation_data"] == known[0]
        assert summary["config"] == {"job": {}, "validation": kept}


def test_every_start_says_what_it_ran_on(tmp_path):
    def start(step, **hardware):
        facts = {"hardware": {**hardware, "memory_gib": 1.0}}
        RunFolder(tmp_path, MetricsFile(tmp_path / "metrics.jsonl", 2), facts).begin(step, None)
        return [each["hardware"] for each in read_summary(tmp_path)["starts"]]

    old, new = {"device": "cpu", "cpu_threads": 1}, {"device": "cuda", "device_name": "H200"}
    assert start(0, **old) == [old]
    assert start(4, **new) == [old, new]
    summary = read_summary(tmp_path)
    for each in summary["starts"]:  # as an earlier version left them
        del each["hardware"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert start(6, **old) == [new, new, old]  # all that can be known


COMPUTING = {"placement": "replicate", "flops_per_token": 5}
READING = {"placement": "cache", "flops_per_token": 0}


def taught(folder, start, teacher, last):
    """Writes a line a step from ``start`` to ``last``; a step's teacher reads 10 tokens."""
    run = RunFolder(folder, MetricsFile(folder / "metrics.jsonl", 1), {})
    run.begin(start, teacher, 10 * start)
    more = {"tokens_per_s": 1.0, "memory_gib": 1.0, "teacher_active": True}
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(start + 1, last + 1):
            flops = run.cost.at(10 * step)
            file.write(json.dumps(line(step, teacher_flops=flops, **more)) + "\n")
    return {each["step"]: each["teacher_flops"] for each in run.file.lines()}


def test_what_the_teacher_computed_counts_whatever_a_resume_finds(tmp_path):
    assert taught(tmp_path, 0, COMPUTING, 6) == {s: 50 * s for s in range(1, 7)}
    # What was written between the checkpoint and the kill is read now, and was computed.
    assert taught(tmp_path, 4, READING, 5) == {1: 50, 2: 100, 3: 150, 4: 200, 5: 300}
    assert taught(tmp_path, 4, READING, 4)[4] == 200  # killed again, before it could log
    assert taught(tmp_path, 4, READING, 6)[6] == 300
    assert taught(tmp_path, 6, None, 6)[6] == 300
    # The cache was removed: what is computed again at a resume is in the steps that are kept.
    assert taught(tmp_path, 5, COMPUTING, 7)[7] == 300 + 2 * 50
    assert taught(tmp_path, 2, COMPUTING, 7) == {s: 50 * s for s in range(1, 8)}


def test_what_a_cache_gave_costs_nothing_afterwards_either(tmp_path):
    assert taught(tmp_path, 0, READING, 4)[4] == 0
    assert taught(tmp_path, 4, COMPUTING, 6) == {1: 0, 2: 0, 3: 0, 4: 0, 5: 50, 6: 100}


def test_the_teachers_cost_goes_on_from_old_summaries_and_without_one(tmp_path):
    taught(tmp_path, 0, COMPUTING, 4)
    old = {**read_summary(tmp_path), "starts": [{"step": 0, "world_size": 1}]}
    (tmp_path / "summary.json").write_text(json.dumps(old))
    assert taught(tmp_path, 4, READING, 6)[6] == 200
    (tmp_path / "summary.json").unlink()
    assert taught(tmp_path, 6, COMPUTING, 7)[7] == 250


def test_outcome_leaves_the_first_window_after_each_start_out():
    cost = {"memory_gib": 1.0, "teacher_active": False}
    slow, fast = {**cost, "tokens_per_s": 1.0}, {**cost, "tokens_per_s": 10.0}
    lines = [line(1, **slow), line(10, **fast), line(20, **slow), line(30, **fast)]
    assert outcome(lines, [0, 10])["throughput"]["after"]["tokens_per_s"] == pytest.approx(10)
    assert outcome(lines, [0, 15])["throughput"]["after"]["tokens_per_s"] == pytest.approx(10)
    assert outcome(lines, [0])["throughput"]["after"]["tokens_per_s"] == pytest.approx(3 / 1.2)
    assert outcome(lines, [0, 1, 10, 20])["throughput"]["after"] is None


def test_outcome_leaves_step_one_out_and_averages_rates_over_equal_windows():
    cost = {"memory_gib": 1.0, "teacher_active": True}
    lines = [
        line(1, tokens_per_s=1.0, **{**cost, "memory_gib": 9.0}),
        line(2, tokens_per_s=10.0, **cost),
        line(3, tokens_per_s=30.0, **{**cost, "memory_gib": 2.0}),
    ]
    found = outcome(lines)["throughput"]
    assert found["let_phase"] == {"tokens_per_s": pytest.approx(15.0), "peak_memory_gib": 2.0}
    assert found["after"] is None
