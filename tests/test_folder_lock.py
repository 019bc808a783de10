"""One run at a time in a folder."""

import errno
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch.distributed as dist

from let_titan.disk import try_lock
from let_titan.errors import ConfigError
from let_titan.run.folder_lock import FolderLock
from let_titan.train import LetTrainer, run
from tests.world import elsewhere


def work_in(folder, with_a_worker=False):
    """What a run's rank 0 does; its data worker is a fork."""
    work_in.lock = FolderLock(folder, True)
    work_in.lock.take()
    if with_a_worker:
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        (folder / "worker").write_text(str(worker.pid))


def test_a_second_start_in_a_folder_is_refused_while_the_first_lives(lab):
    folder = lab.folder / "run"
    config = lab.config(None, job__save_config_file="saved/config.json")
    saved = folder / "saved" / "config.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("the first one's")
    with (
        elsewhere(work_in, folder) as number,
        pytest.raises(ConfigError, match=rf"Another run is at work in .*\(process {number} on "),
    ):
        run(config)
    assert not (folder / "metrics.jsonl").exists() and saved.read_text() == "the first one's"
    run(config)
    dist.init_process_group("gloo")  # run() ends the world it was in
    assert (folder / "metrics.jsonl").exists()
    assert json.loads(saved.read_text()) == config.to_dict()


def test_a_config_is_printed_before_there_is_a_folder_to_save_it_in(lab, caplog):
    config = lab.parsed(job__save_config_file="config.json")
    config.maybe_log()
    assert caplog.text == ""
    config.job.print_config = True
    with caplog.at_level("INFO"):
        config.maybe_log()
    assert f"Running with configs: {json.dumps(config.to_dict(), indent=2)}" in caplog.text
    assert not (lab.folder / "run").exists()


def test_a_trainer_that_is_closed_holds_no_folder(lab):
    trainer = LetTrainer(lab.config(None))
    trainer.close()
    with elsewhere(work_in, lab.folder / "run"):
        assert trainer.metrics_processor.file is not None  # the trainer itself is still there


def test_workers_that_outlive_a_killed_run_do_not_hold_its_folder(tmp_path):
    with elsewhere(work_in, tmp_path, True) as number:
        os.kill(number, signal.SIGKILL)
        time.sleep(0.2)
        worker = int((tmp_path / "worker").read_text())
        try:
            os.kill(worker, 0)  # it lives
            again = FolderLock(tmp_path, True)
            again.take()
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
            again.release()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_ranks_that_do_not_write_hold_nothing(tmp_path):
    with elsewhere(work_in, tmp_path) as number:
        FolderLock(tmp_path, False).take()
        assert (tmp_path / ".lock").read_text().startswith(f"process {number} on ")


def test_where_a_file_system_knows_no_locks_everyone_is_let_in():
    def unknown(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    assert try_lock(0, unknown)
