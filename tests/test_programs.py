"""SIGTERM to a program: what it writes is removed, and what it runs ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from let_titan.stop import SIGNALS, StopRequest, exit_on_sigterm

WRITES = """
import sys, time
from pathlib import Path
from let_titan.disk import write_whole
from let_titan.errors import exit_code

def write(folder):
    (folder / "half").write_text("half")
    print("begun", flush=True)
    while True:  # a signal that comes just before a sleep begins is looked at when that ends
        time.sleep(0.1)

sys.exit(exit_code("test", lambda: write_whole(Path(sys.argv[1]) / "out", write)))
"""

RUNS = """
import sys
from let_titan.errors import exit_code
from let_titan.programs import run_to_end

child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
sys.exit(exit_code("test", lambda: run_to_end([sys.executable, "-c", child])))
"""


def end(program, *args):
    """Starts a program, ends it after its first line by SIGTERM; returns its code and the line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    line = process.stdout.readline().strip()
    process.terminate()
    return process.wait(60), line


def test_what_was_half_written_is_removed(tmp_path):
    assert end(WRITES, str(tmp_path)) == (128 + signal.SIGTERM, "begun")
    assert not list(tmp_path.iterdir())


def test_a_program_leaves_the_signal_as_it_was_or_to_who_listens():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with exit_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with exit_on_sigterm(), pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_request_to_stop_has_the_first_signals_name_and_leaves_the_handlers(capfd):
    before = [signal.getsignal(number) for number in SIGNALS]
    request = StopRequest()
    with request.listening():
        assert not request()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert request() and request.name == "SIGTERM"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert capfd.readouterr().err == "let_titan: SIGTERM, so this step is the last one\n"


def test_what_it_runs_ends_too(tmp_path):
    code, child = end(RUNS)
    assert code == 128 + signal.SIGTERM
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
