"""A mistake ends with one sentence and exit code 2, before anything is loaded or written."""

import os
import re
import subprocess
import sys
import time

import pytest

from tests.support import free_port, write_toml


def start(lab, *args: str, ranks: int = 0):
    """Runs ``python -m let_titan.train``, or torchrun with ``ranks``; returns process and time."""
    path = write_toml(lab.folder / "exit.toml", lab.sections({}))
    module = ["-m", "let_titan.train", *args, "--job.config_file", str(path)]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    launcher += ["--master_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not ranks:
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    begin = time.monotonic()
    process = subprocess.run(
        [sys.executable, *(launcher if ranks else []), *module],
        capture_output=True,
        text=True,
        env=environment,
    )
    return process, time.monotonic() - begin


def test_one_sentence_and_exit_code_two(lab):
    process, _ = start(lab, "--let.k", "9")
    assert process.returncode == 2
    told = [line for line in process.stderr.splitlines() if line.startswith("let_titan:")]
    assert told == [
        "let_titan: let.k = 9 must lie between 1 and the 4 blocks of 'debug'.",
    ]
    assert "Traceback" not in process.stderr + process.stdout
    assert not (lab.folder / "run").exists()


def test_a_missing_config_file_shows_no_traceback(lab):
    process, _ = start(lab, "--job.config_file=none.toml")
    assert process.returncode == 2
    assert "'none.toml' cannot be read (No such file or directory)" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout


@pytest.mark.parametrize("args", [("--let.k", "9"), ("--nonsense", "1")])
def test_on_two_ranks_it_is_told_once(args, lab):
    process, _ = start(lab, *args, ranks=2)
    assert process.returncode == 1  # torchrun's own, after its ChildFailedError
    output = (process.stderr + process.stdout).replace(sys.prefix, "")
    assert output.count("let.k = 9" if args[0] == "--let.k" else "nonsense") == 1
    assert not re.search(r'(let_titan|torchtitan)/\S+\.py", line', output)


def test_a_teacher_out_of_reach_is_told_within_ten_seconds(lab):
    _, import_time = start(lab, "--let.k", "9")
    process, elapsed = start(lab, "--teacher.checkpoint", "HuggingFaceTB/SmolLM-135M-none")
    assert process.returncode == 2
    assert "or a hub id that this machine can reach" in process.stderr
    assert elapsed - import_time < 10


def test_the_wrong_order_of_imports_is_explained():
    code = "import torchtitan.tools.utils, let_titan"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "let_titan must be imported before torchtitan" in process.stderr
