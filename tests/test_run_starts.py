"""What a later start of a run finds of the earlier ones, and keeps."""

import json

from let_titan.run.folder import RunFolder
from let_titan.run.record import MetricsFile
from tests.run_files import line_of, read_summary


def test_resume_cuts_what_lies_past_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 0, "val_loss": 3.0},
        line_of(1),
        line_of(2),
        {"step": 2, "val_loss": 2.0},
        line_of(3),
    ]
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
            file.write(json.dumps(line_of(step, teacher_flops=flops, **more)) + "\n")
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
