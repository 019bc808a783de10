"""The thread that reads the teacher's states ahead takes no core from the step."""

import os
import subprocess
import sys

READ_BESIDE = """
import os, sys, torch
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from let_titan.state_cache import StateFiles

files = StateFiles(Path(sys.argv[1]), 0)
states = torch.randn(8, 512, 192).bfloat16()
files.write([*range(8)], {"last": states})
states + 1  # this thread's own team
with ThreadPoolExecutor(1) as reader:
    reader.submit(int).result()
    before = len(os.listdir("/proc/self/task"))
    rows = reader.submit(files.read, [*range(8)], ["last"]).result()[0]
    assert torch.equal(torch.stack(rows), states)
    print(len(os.listdir("/proc/self/task")) - before)
    reader.submit(torch.stack, rows).result()
    print(len(os.listdir("/proc/self/task")) - before)
"""


def test_to_read_ahead_begins_no_team_of_threads(tmp_path):
    """One op there does, and its threads wait for more on the step's cores."""
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", READ_BESIDE, str(tmp_path)]
    done = subprocess.run(command, env=threads, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1"], done.stdout + done.stderr
