"""A rank's helpers: deaf to signals that are not of their rank, and gone when it is gone."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS

from let_titan.build_data import build_dataloader, build_validation_dataloader
from let_titan.helpers import (
    serve_rank,
    serve_rank_as_worker,
    serve_rank_in_workers,
    signals_blocked,
)
from let_titan.stop import SIGNALS, StopRequest
from let_titan.tokenizer.build import load_tokenizer
from tests.numbered import write_corpus

FORK = multiprocessing.get_context("fork")
NOT_YET = 1.5  # the rank is looked for once a second


def send(number, pid):
    """Signals a process by another one."""
    subprocess.run(["sh", "-c", f"kill -{int(number)} {pid}"], check=True)


def gone(pid, seconds=8):
    """Whether a process ends in time; where nobody waits for it, it stays as a zombie."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def idle():
    serve_rank()
    time.sleep(600)


def start_helper():
    helper = FORK.Process(target=idle, daemon=True)
    with signals_blocked():
        helper.start()
    return helper


@pytest.mark.parametrize("number", SIGNALS)
def test_a_helper_heeds_its_rank_alone(number):
    helper = start_helper()
    for _ in range(2):
        send(number, helper.pid)
    helper.join(NOT_YET)
    assert helper.is_alive()
    helper.terminate()
    helper.join(5)
    assert helper.exitcode == 0


def test_a_helper_is_deaf_before_it_can_see_to_it():
    helper = FORK.Process(target=time.sleep, args=(600,), daemon=True)
    with signals_blocked():
        helper.start()
    send(signal.SIGTERM, helper.pid)
    helper.join(0.3)
    assert helper.is_alive()
    helper.kill()


def test_a_helper_whose_work_is_done_ends():
    helper = FORK.Process(target=serve_rank)
    helper.start()
    helper.join(8)
    try:
        assert helper.exitcode == 0
    finally:
        helper.kill()


def a_rank(told):
    helper, other = start_helper(), FORK.Process(target=time.sleep, args=(600,))
    other.start()  # which holds the pipe, too, by whose end a helper could tell its rank's
    told.send((helper.pid, other.pid))
    time.sleep(600)


def test_a_helper_goes_with_its_rank():
    told, telling = FORK.Pipe(duplex=False)
    rank = FORK.Process(target=a_rank, args=(telling,))
    rank.start()
    helper, other = told.recv()
    rank.kill()
    rank.join()
    try:
        assert gone(helper)
    finally:
        os.kill(other, signal.SIGKILL)


FIRST = """
import signal
from multiprocessing import resource_tracker
from let_titan.helpers import signals_blocked
from let_titan.stop import SIGNALS

with signals_blocked():
    resource_tracker.ensure_running()
    print({*SIGNALS} <= signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_the_first_helper_of_all_starts_with_its_signals_blocked():
    """Before it Python starts a tracker, and Python 3.11 unblocks the signals with that."""
    told = subprocess.run([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True)
    assert told.stdout == "True\n"


READER = """
import multiprocessing, sys, time
from tests.numbered import corpus
from let_titan.data.loader import PileLoader

options = {"rank": 0, "ranks": 1, "batch": 2, "seq_len": 50000, "lanes": 2, "workers": 2}
batches = iter(PileLoader(corpus(sys.argv[1]), {}, **options))
next(batches)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(600)
"""


def test_data_workers_go_with_their_rank(tmp_path):
    """Those of torch alone stay for ever, if what they have read does not fit into the pipe."""
    write_corpus(tmp_path / "c")
    command = [sys.executable, "-c", READER, str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rank:
        workers = [int(pid) for pid in rank.stdout.readline().split()]
        rank.kill()
    assert len(workers) == 2
    left = [pid for pid in workers if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize("number", SIGNALS)
def test_no_signal_is_lost_while_helpers_start(number):
    request = StopRequest()
    with request.listening():
        with signals_blocked():
            os.kill(os.getpid(), number)
        assert request.name == number.name
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*SIGNALS}


@pytest.fixture
def fork_server():
    """Starts processes as Python does by default from 3.14 on."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


class Ids(IterableDataset):
    """Gives the worker's process and what its own start function left."""

    noted = None

    def __init__(self):
        self.encode = lambda: None  # as our data sets and torchtitan's, it cannot be pickled

    def __iter__(self):
        while True:
            yield f"{os.getpid()} {Ids.noted}"


def note(worker):
    Ids.noted = f"worker {worker}"


def test_any_loader_gets_deaf_workers_that_begin_as_they_did(fork_server):
    loader = DataLoader(Ids(), batch_size=None, num_workers=1, worker_init_fn=note)
    serve_rank_in_workers(loader)
    stream = iter(loader)
    first = next(stream)
    assert first.endswith("worker 0")
    send(signal.SIGTERM, first.split()[0])
    time.sleep(0.3)
    assert [next(stream) for _ in range(20)] == [first] * 20


def test_torchtitans_loaders_get_them(lab, monkeypatch):
    texts = DatasetConfig("", lambda _: Dataset.from_dict({"text": ["a"]}), lambda row: row["text"])
    monkeypatch.setitem(DATASETS, "texts", texts)
    changes = {"training__dataset": "texts", "validation__dataset": "texts"}
    config = lab.parsed(None, **changes)
    tokenizer = load_tokenizer(config.model.hf_assets_path)
    for loader in (
        build_dataloader(1, 0, tokenizer, config),
        build_validation_dataloader(tokenizer, config),
    ):
        assert isinstance(loader.worker_init_fn, partial)
        assert loader.worker_init_fn.func is serve_rank_as_worker
