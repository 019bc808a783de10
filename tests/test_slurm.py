"""recipes/slurm, with Slurm's programs and python stubbed: what they are given, in which order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAIR, TRAIN = "recipes/slurm/pair.sh", "recipes/slurm/train.sbatch"
LET, BASELINE = "train_configs/let_1_4b.toml", "train_configs/let_1_4b_baseline.toml"


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    """Puts programs that tell their arguments first into PATH; returns what runs a script there.

    Args:
        of what it returns: the script and its arguments; name=lines of bash for a program.
    """
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()

    def start(script, *args, **programs):
        told = tmp_path / "told"
        told.write_text("")
        for name, lines in programs.items():
            stub = tmp_path / "bin" / name
            stub.write_text(f'#!/bin/bash\necho "{name} $*" >> {told}\n{lines}\n')
            stub.chmod(0o755)
        done = subprocess.run(
            ["bash", str(Path(script).resolve()), *args],
            cwd=tmp_path,
            env={**os.environ, "SLURM_JOB_ID": "7", "SLURM_NNODES": "4", "SLURM_JOB_NODELIST": "n"},
            capture_output=True,
            text=True,
        )
        return done, told.read_text().splitlines()

    return start


def test_a_pair_shares_flags_but_the_teachers(stubbed):
    both = ["--training.steps", "50", "--debug.seed=1"]
    own = ["--let.k", "4", "--let.pairs", "last:3:1", "middle:6:1", "--teacher.float8"]
    done, told = stubbed(PAIR, LET, *own, *both, "--distill.weight=0.5", python="", sbatch="")
    assert done.returncode == 0, done.stderr
    every, shared = " ".join([*own, *both, "--distill.weight=0.5"]), " ".join(both)
    script = Path(PAIR).resolve().with_name("train.sbatch")
    assert told == [
        f"python -m let_titan.preflight --job.config_file {LET} {every}",
        f"python -m let_titan.preflight --job.config_file {BASELINE} {shared}",
        f"sbatch --job-name let_1_4b {script} {LET} {every}",
        f"sbatch --job-name let_1_4b_baseline {script} {BASELINE} {shared}",
    ]


@pytest.mark.parametrize("flag", [["--job.dump_folder", "x"], ["--job.dump-folder=x"]])
def test_a_pair_in_one_folder_is_refused(flag, stubbed):
    done, told = stubbed(PAIR, LET, "--training.steps", "50", *flag, python="", sbatch="")
    assert done.returncode == 2 and told == []
    assert "would put both runs into one folder: start each by train.sbatch" in done.stderr


def summary(state):
    return f"""mkdir -p run; echo '{{"exit_state": "{state}"}}' > run/summary.json"""


STOPPED = "stopped at step 9 by a signal"


@pytest.mark.parametrize(
    ("before", "after", "requeued"),
    [
        ("running", STOPPED, True),
        ("stopped at step 4 by a signal", STOPPED, True),
        (STOPPED, STOPPED, False),
        (STOPPED, "completed", False),
        ("running", "running", False),
        ("running", "failed: RunError: the disk is full", False),
    ],
)
def test_a_run_that_was_told_to_stop_is_queued_again_if_it_came_further(
    before, after, requeued, stubbed, tmp_path
):
    subprocess.run(summary(before), shell=True, check=True, cwd=tmp_path)
    signalled = f"{summary(after)}\nexit 1"  # as torchrun ends
    done, told = stubbed(TRAIN, LET, scontrol="echo n1", python="echo run", srun=signalled)
    assert done.returncode == 1, done.stderr
    assert ("scontrol requeue 7" in told) == requeued


def test_a_run_has_the_time_to_stop_and_the_folder_of_its_flags(stubbed, tmp_path, monkeypatch):
    header = Path(TRAIN).read_text()
    assert "#SBATCH --signal=TERM@600\n" in header  # to srun's tasks: no B:
    flags = ["--job.dump_folder", "run", "--debug.seed", "1"]
    python = f'exec {sys.executable} "$@"'
    srun = f'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT" > seconds\n{summary(STOPPED)}'
    config = str(Path(LET).resolve())
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    done, told = stubbed(TRAIN, config, *flags, scontrol="echo n1", python=python, srun=srun)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seconds").read_text() == "600\n"
    (started,) = (line for line in told if line.startswith("srun"))
    assert started.endswith(f"-m let_titan.train --job.config_file {config} {' '.join(flags)}")
    assert told[-1] == "scontrol requeue 7"
