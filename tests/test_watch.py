"""What the live view says of a run that starts, stops, resumes and ends."""

import io
import json
import os
import re
import threading
import time

import pytest
from rich.console import Console

from let_titan.watch import Watched, column, duration, find_baseline, follow, main, view
from tests.handmade import BASELINE, BETTER, train_line, write_run

STARTS = [{"step": 0, "world_size": 2}, {"step": 10, "world_size": 2}]


@pytest.fixture
def folder(tmp_path):
    """A LET run of 40 steps that is at step 20, with a line every two seconds a step."""
    folder = write_run(tmp_path / "let", True, {0: 11.0, 10: 9.5, 20: 8.0})
    change(folder, exit_state="running", starts=STARTS[:1])
    return folder


def change(folder, **facts):
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def append(folder, *lines):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def cells(run, baseline=None, later=0.0):
    run.refresh()
    now = (run.folder / "metrics.jsonl").stat().st_mtime + later
    return {key: str(value) for key, value in column(run, baseline, now).items()}


def test_a_running_run(folder, tmp_path):
    baseline = Watched(write_run(tmp_path / "baseline", False, BASELINE))
    baseline.refresh()
    run = Watched(folder)
    shown = cells(run, baseline)
    assert shown["state"] == "running" and shown["step"] == "20 of 40 (50%)"
    assert shown["loss"] == "7.0000 (+0.0000)"
    assert shown["validation loss"] == "8.0000 (+0.0000)" and shown["validated at"] == "20"
    assert shown["lambda"] == "0.1000" and shown["cosine"] == "0.5000"
    assert shown["gradient norm"] == "1.000"
    assert shown["tokens/s"] == "450" and shown["memory, GiB"] == "3.00"
    assert shown["time left"] == "40 s"  # 20 steps of 2 s: the teacher leaves at step 20
    append(folder, {**train_line(25, True), "loss": 6.5}, {"step": 25, "val_loss": 7.5})
    shown = cells(run, baseline)
    assert shown["loss"] == "6.5000 (+0.0000 at 20)"  # the baseline has no line at 25
    assert shown["validation loss"] == "7.5000 (+0.0000 at 20)"
    assert shown["time left"] == "30 s" and shown["lambda"] == "0.0000"


def test_the_time_left_counts_each_phase_at_its_own_pace(folder, tmp_path):
    """With the teacher a step takes 6 s; after it, as without one, 2 s."""
    (folder / "metrics.jsonl").write_text("")
    slow = [{**train_line(step, True), "elapsed_s": 6.0 * step} for step in (5, 10, 15)]
    append(folder, *slow)
    baseline = Watched(write_run(tmp_path / "baseline", False, BASELINE))
    baseline.refresh()
    run = Watched(folder)
    assert cells(run)["time left"] == "up to 2 min 30 s"  # 25 steps, if nothing gets faster
    assert cells(run, baseline)["time left"] == "1 min 10 s"  # 5 steps of 6 s, 20 of 2 s
    change(folder, let_plan={"s_stop": 40})
    assert cells(run, baseline)["time left"] == "2 min 30 s"  # a teacher to the end
    change(folder, let_plan={"s_stop": 20})
    append(folder, *({**train_line(s, True), "elapsed_s": 120.0 + 2 * (s - 20)} for s in (25, 30)))
    assert cells(run)["time left"] == "20 s"  # the windows with the teacher do not count


def test_a_killed_run_is_called_silent_and_a_resumed_one_is_not(folder):
    run = Watched(folder)
    change(
        folder,
        config={
            **json.loads((folder / "summary.json").read_text())["config"],
            "metrics": {"log_freq": 10},
        },
    )
    assert cells(run, later=190)["state"] == "running"  # ten windows of 20 s
    assert cells(run, later=230)["state"] == "silent for 3 min 50 s"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "new").write_text("".join(line + "\n" for line in lines if '"step": 20' not in line))
    os.replace(folder / "new", folder / "metrics.jsonl")  # as a resume at step 10 does
    change(folder, starts=STARTS)
    shown = cells(run)
    assert shown["state"] == "running" and shown["resumed at"] == "10"
    assert shown["step"] == "10 of 40 (25%)" and shown["time left"] == "-"  # no window yet
    assert cells(run, later=1e6)["state"] == "running"  # how long a step takes is not known
    for step, left in ((20, "-"), (30, "20 s")):
        append(folder, train_line(step, True))
        assert cells(run)["time left"] == left
    change(folder, exit_state="stopped at step 30 by a signal")
    shown = cells(run, later=1e6)
    assert shown["state"] == "stopped at step 30 by a signal" and shown["time left"] == "-"


def test_a_quick_run_is_not_called_silent_at_once(folder):
    (folder / "metrics.jsonl").write_text("")
    append(folder, *({**train_line(step, True), "elapsed_s": 0.01 * step} for step in (10, 20)))
    run = Watched(folder)
    assert cells(run, later=15)["state"] == "running"
    assert cells(run, later=25)["state"] == "silent for 25 s"


def test_torn_null_and_unknown_lines_are_borne(folder, tmp_path):
    run = Watched(folder)
    append(folder, {"step": 21, "nonfinite": {"loss_ranks": [0]}}, {"step": 30, "loss": None})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    shown = cells(run)
    assert shown["skipped steps"] == "1" and shown["step"].startswith("30 of 40")
    assert shown["loss"] == shown["tokens/s"] == shown["time left"] == "-"
    baseline = Watched(write_run(tmp_path / "baseline", False, BASELINE))
    baseline.refresh()
    assert cells(run, baseline)["loss"] == "- (+0.0000 at 20)"
    (folder / "summary.json").write_text("{")  # half of it, for a moment
    assert cells(run) == shown


def test_the_last_checkpoint_is_a_whole_one(folder):
    for step, mark in ((10, ".metadata"), (100, ".metadata"), (200, "torn")):
        path = folder / "checkpoint" / f"step-{step}"
        path.mkdir(parents=True)
        (path / mark).touch()
    summary = json.loads((folder / "summary.json").read_text())
    change(folder, config={**summary["config"], "checkpoint": {"folder": "checkpoint"}})
    assert cells(Watched(folder))["last checkpoint"] == "step 100"


def test_the_baseline_is_the_one_run_without_a_teacher(folder, tmp_path):
    plain = [Watched(write_run(tmp_path / name, False, BASELINE)) for name in ("a", "b")]
    let = Watched(folder)
    for run in (*plain, let):
        run.refresh()
    assert find_baseline([let, plain[0]]) is plain[0]
    assert find_baseline([let, Watched(tmp_path / "later")]) is None
    assert find_baseline([let, *plain]) is find_baseline([plain[0]]) is None


def test_the_table_leaves_out_what_no_run_has(folder, tmp_path):
    baseline, let = Watched(write_run(tmp_path / "baseline", False, BASELINE)), Watched(folder)

    def shown(*runs):
        console = Console(file=io.StringIO(), width=80)
        for run in runs:
            run.refresh()
        console.print(view(runs, find_baseline(runs), time.time()))
        return console.file.getvalue()

    text = shown(baseline, let)
    assert re.search(r"^lambda +- +0\.1000 *$", text, re.MULTILINE) and "cosine" in text
    assert re.search(r"^loss +7\.0000 +7\.0000 \(\+0\.0000\) *$", text, re.MULTILINE)
    assert "in brackets: against baseline at the same step" in text
    assert all(word not in text for word in ("resumed", "skipped", "None"))
    assert "lambda" not in shown(baseline)
    append(folder, {"step": 21, "nonfinite": {"loss": [0]}})
    change(folder, starts=STARTS)
    assert "skipped steps" in (text := shown(baseline, let)) and "resumed at" in text


def test_it_follows_from_before_the_start_to_the_end(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60)
    run = Watched(tmp_path / "run")
    watcher = threading.Thread(target=follow, args=([run], None, console, False, 0.01))
    watcher.start()

    def wait_for(text):
        deadline = time.monotonic() + 20
        while text not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watcher.is_alive() and text in out.getvalue()

    wait_for("not started")
    scratch = write_run(tmp_path / "scratch", True, BETTER)
    change(scratch, exit_state="running")
    scratch.rename(tmp_path / "run")
    wait_for("running")
    change(tmp_path / "run", exit_state="completed")
    watcher.join(20)
    assert not watcher.is_alive()
    assert "completed" in out.getvalue()


def test_once_and_mistakes(folder, tmp_path, capsys):
    assert main([str(folder), "--once"]) == 0
    told = capsys.readouterr().out
    assert "20 of 40" in told and "in brackets" not in told
    baseline = str(write_run(tmp_path / "baseline", False, BASELINE))
    assert main([str(folder), "--once", "--baseline", baseline]) == 0
    told = capsys.readouterr().out
    assert "8.0000 (+0.0000)" in told and "in brackets: against baseline" in told
    assert main([str(folder), baseline, "--once", "--baseline", baseline]) == 0
    assert capsys.readouterr().out.count("(+0.0000)") == 2  # not against itself
    assert main([str(tmp_path / "none"), "--once"]) == 2
    assert "none is no folder" in capsys.readouterr().err
    assert main([str(folder), "--once", "--baseline", str(tmp_path / "typo")]) == 2
    assert "typo is no folder" in capsys.readouterr().err


def test_it_looks_on_while_one_run_is_at_work_until_it_is_interrupted(
    folder, tmp_path, monkeypatch, capsys
):
    def interrupted(seconds):
        assert seconds == 3.0
        raise KeyboardInterrupt

    monkeypatch.setattr("let_titan.watch.time.sleep", interrupted)
    done = write_run(tmp_path / "done", False, BASELINE)
    screen = Console(file=io.StringIO())
    follow([Watched(done)], None, screen, False, 3.0)
    with pytest.raises(KeyboardInterrupt):
        follow([Watched(done), Watched(folder)], None, screen, False, 3.0)
    assert main([str(folder)]) == 0  # once, where there is no terminal
    monkeypatch.setattr(Console, "is_terminal", True)
    assert main([str(folder), "--every", "3"]) == 0
    assert "20 of 40" in capsys.readouterr().out


def damage_a_line(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = "garbage"
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("every", ["-1", "0", "nan", "inf"])
def test_a_pause_is_above_0(every, folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), "--once", "--every", every])
    assert f"--every: {float(every)} must be a finite number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_a_line, "metrics.jsonl, line 3, is not JSON (Expecting value): remove that line."),
        (lambda run: (run / "summary.json").write_text("[]"), "summary.json holds no summary"),
        (lambda run: (run / "summary.json").write_text("{"), "summary.json is not JSON"),
    ],
    ids=["line", "list", "half"],
)
def test_what_cannot_be_read_is_said(damage, sentence, folder):
    whole = Watched(folder)
    whole.refresh()
    text, damaged = (folder / "metrics.jsonl").read_text(), Watched(folder)
    damage(folder)
    damaged.refresh()
    assert damaged.exit_state == "unreadable"
    for shown in (shown_of(damaged), shown_of(damaged, damaged), shown_of(whole, damaged)):
        assert shown.count(sentence) == 1
    whole.refresh()
    assert whole.exit_state == "running"  # what was read before is shown on
    if damage is damage_a_line:
        assert sentence in shown_of(whole)
        (folder / "metrics.jsonl").write_text(text)
        whole.refresh()
        assert whole.problem is None


def test_a_baseline_that_has_not_started_is_compared_with_by_nobody(folder, tmp_path):
    run, other = Watched(folder), Watched(tmp_path / "later")
    run.refresh()
    other.refresh()
    text = shown_of(run, other)
    assert "later, to compare with, is not started" in text and "in brackets" not in text


def shown_of(run, baseline=None):
    console = Console(file=io.StringIO(), width=400)
    console.print(view([run], baseline, time.time()))
    return " ".join(console.file.getvalue().split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (245, "4 min 05 s"), (3 * 3600 + 240, "3 h 04 min"), (86400, "1 d 0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
