"""SIGTERM or SIGINT on any rank: all finish the step, save and leave; the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist

import let_titan.run.folder
import let_titan.train
from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.checkpoint.manager import LetCheckpointManager
from let_titan.train import LetTrainer, exit_state_of, run
from tests.resumed import SAVED, train
from tests.support import Lab, write_toml
from tests.world import free_port, run_world

SPARSE = {"checkpoint__interval": 1000, "checkpoint__last_save_model_only": True}
"""No save but that of a stop, which is in full whatever the last step's is."""


class Interrupted(LetTrainer):
    """A trainer that gets signals in the middle of step 3, on the last rank."""

    signals = (signal.SIGTERM,)
    send = staticmethod(os.kill)

    def forward_backward_step(self, **kwargs):
        loss = super().forward_backward_step(**kwargs)
        if self.step == 3 and dist.get_rank() == dist.get_world_size() - 1:
            for number in self.signals:
                self.send(os.getpid(), number)
        return loss


def to_all(pid, number):
    """Signals a process and its helpers, as launchers do; a helper heeds its parent's signal."""
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    assert len(family) > 1
    subprocess.run(["sh", "-c", f"kill -{int(number)} {' '.join(map(str, family))}"], check=True)
    time.sleep(0.5)  # as long as a step may take


def stop_in_step_3(lab, s_stop=3, **changes):
    """Runs ``main``'s ``run`` with a signal on the way; returns the summary's exit state."""
    changes = {"validation__dataset_path": str(lab.assets / "validation.jsonl"), **changes}
    config = lab.config({"s_stop": s_stop}, **{**SAVED, **SPARSE, **changes})
    before = let_titan.train.LetTrainer, dist.destroy_process_group
    let_titan.train.LetTrainer, dist.destroy_process_group = Interrupted, lambda: None
    try:
        run(config)
    finally:
        let_titan.train.LetTrainer, dist.destroy_process_group = before
    return json.loads((lab.folder / "run" / "summary.json").read_text())["exit_state"]


def assert_same(resumed, whole):
    assert resumed["lines"] == whole["lines"]
    for part in ("weights", "optimizer"):
        for name, wanted in whole[part].items():
            assert torch.equal(resumed[part][name], wanted), name


@pytest.mark.parametrize("mode", ["disabled", "async"])
@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)], ids=["TERM", "INT and TERM"]
)
def test_one_process_saves_and_goes_on(signals, mode, finished, lab, monkeypatch, capfd):
    monkeypatch.setattr(Interrupted, "signals", signals)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    state = stop_in_step_3(lab, checkpoint__async_mode=mode)
    assert state == "stopped at step 3 by a signal"
    told = re.findall(r"let_titan: (\w+), so this step is the last one", capfd.readouterr().err)
    assert told == [signals[0].name]
    assert list(whole_checkpoints(lab.folder / "run" / "checkpoint")) == [3]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert_same(train(lab, **SPARSE), finished[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["end", "close"])
def test_a_signal_that_is_repeated_while_the_run_ends_changes_nothing(
    place, number, lab, monkeypatch
):
    owner = let_titan.run.folder.RunFolder if place == "end" else LetTrainer
    before = getattr(owner, place)

    def signalled(*args):
        os.kill(os.getpid(), number)
        return before(*args)

    monkeypatch.setattr(owner, place, signalled)
    # What the signal did to this process, were it not held back
    heard = []
    handlers = {n: signal.signal(n, lambda n, _: heard.append(n)) for n in (15, 2)}
    try:
        assert stop_in_step_3(lab) == "stopped at step 3 by a signal"
    finally:
        for n, handler in handlers.items():
            signal.signal(n, handler)
    assert heard == []


def test_a_signal_during_the_load_ends_the_run_after_its_first_step(lab, monkeypatch):
    load = LetCheckpointManager.load

    def signalled(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return load(*args, **options)

    monkeypatch.setattr(LetCheckpointManager, "load", signalled)
    assert stop_in_step_3(lab) == "stopped at step 1 by a signal"
    assert list(whole_checkpoints(lab.folder / "run" / "checkpoint")) == [1]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "the same command goes on from there"),
        ({"enable": False}, "nothing is saved (checkpoint.enable = false)"),
        ({"load_only": True}, "nothing is saved (checkpoint.load_only = true)"),
    ],
)
def test_a_stopped_run_says_where_a_new_start_begins(keys, sentence, lab, monkeypatch):
    config = lab.config(
        None, **{f"checkpoint__{key}": x for key, x in {"enable": True, **keys}.items()}
    )
    told = []
    monkeypatch.setattr(let_titan.train, "logger", SimpleNamespace(info=told.append))
    guard = SimpleNamespace(stop=True)
    state = exit_state_of(SimpleNamespace(job_config=config, step=3, guard=guard))
    assert state == "stopped at step 3 by a signal" and sentence in told[0]


def test_a_step_that_is_saved_anyway_is_saved_once(lab, monkeypatch):
    saved, save = [], LetCheckpointManager.dcp_save

    def noted(manager, states, checkpoint_id, *args, **options):
        saved.append(Path(checkpoint_id).name)
        return save(manager, states, checkpoint_id, *args, **options)

    monkeypatch.setattr(LetCheckpointManager, "dcp_save", noted)
    stop_in_step_3(lab, checkpoint__interval=1)
    assert saved == ["step-1", "step-2", "step-3"]


def test_without_checkpoints_it_still_ends_well(lab):
    assert stop_in_step_3(lab, checkpoint__enable=False).startswith("stopped at step 3")
    assert not (lab.folder / "run" / "checkpoint").exists()


def test_the_step_of_a_stop_is_logged_and_its_time_is_kept(lab):
    stop_in_step_3(lab, 4, metrics__log_freq=100, validation__enable=False)
    run = lab.folder / "run"
    _, line = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())  # the first step's
    (saved,) = map(json.loads, (run / "clock.jsonl").read_text().splitlines())
    assert line["step"] == saved["step"] == 3 and line["align_cosine"] is not None
    assert saved["elapsed_s"] > line["elapsed_s"] > 0
    assert json.loads((run / "summary.json").read_text())["wall_time_s"] == line["elapsed_s"]


def on_two_ranks(assets, folder):
    (folder / "quiet").mkdir(exist_ok=True)
    whole = train(Lab(assets, folder / "quiet"), **SPARSE)
    lab = Lab(assets, folder)
    stop_in_step_3(lab)
    steps = list(whole_checkpoints(folder / "run" / "checkpoint"))
    dist.barrier()
    return SimpleNamespace(whole=whole, steps=steps, resumed=train(lab, **SPARSE))


def test_a_signal_on_one_rank_stops_both_at_the_same_step(assets, tmp_path):
    result = run_world(2, on_two_ranks, tmp_path, assets, tmp_path)
    assert result.steps == [3]
    assert_same(result.resumed, result.whole)


WORKERS = {"training.dataloader__num_workers": 2}
SAVER = {"checkpoint__async_mode": "async_with_pinned_mem", "checkpoint__interval": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("helpers", [WORKERS, SAVER], ids=["workers", "saver"])
def test_helpers_are_deaf(helpers, number, finished, lab, monkeypatch):
    """What reads data and what writes checkpoints is signalled, too, and does its work still."""
    monkeypatch.setattr(Interrupted, "signals", (number,))
    monkeypatch.setattr(Interrupted, "send", staticmethod(to_all))
    assert stop_in_step_3(lab, **helpers) == "stopped at step 3 by a signal"
    assert max(whole_checkpoints(lab.folder / "run" / "checkpoint")) == 3
    assert_same(train(lab, **SPARSE), finished[1])


def test_torchrun_passes_the_signal_on(lab):
    """SIGTERM to the launcher while two ranks train: both ranks save the step they are in.

    torchrun signals their groups, in which there are two data workers and a saver of each.
    """
    changes = {**SAVED, "training__steps": 100000, "data__lanes": 4, **WORKERS, **SAVER}
    changes["validation__enable"] = False
    config = write_toml(lab.folder / "run.toml", lab.sections({"s_stop": 3}, **changes))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", str(free_port()), "-m", "let_titan.train"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    with (lab.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*launcher, "--job.config_file", str(config)], stdout=log, stderr=log, env=environment
        )
    metrics = lab.folder / "run" / "metrics.jsonl"
    try:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            assert process.poll() is None, (lab.folder / "log").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        process.kill()
    state = json.loads((lab.folder / "run" / "summary.json").read_text())["exit_state"]
    step = max(whole_checkpoints(lab.folder / "run" / "checkpoint"))
    assert state == f"stopped at step {step} by a signal"
    text = (lab.folder / "log").read_text()
    assert not re.search(r'(let_titan|torchtitan)/\S+\.py", line', text.replace(sys.prefix, ""))
