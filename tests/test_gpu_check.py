"""scripts/gpu_check.sh: what it says without a GPU, and what becomes of its parts."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_check import NOT_NEEDED, PARTS, Part, check, files_with_gpu_tests, given, main, needs
from overhead.setting import SETTINGS

from tests import asks_for_gpus

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("python", "wheels", "sentence"),
    [
        (sys.executable, [], "torch finds no CUDA GPU here ("),
        ("no-python", [], "'no-python' cannot be run: "),
        (sys.executable, ["nowhere"], "'nowhere' is no folder: "),
    ],
    ids=["no GPU", "no Python", "no wheels"],
)
def test_where_it_cannot_run_it_is_one_sentence_and_exit_2(python, wheels, sentence, tmp_path):
    here = {**os.environ, "PYTHON": python, "OUT": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", "scripts/gpu_check.sh", *wheels]
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"gpu_check: {sentence}")
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


ANY_PYTHON = """#!/bin/bash
echo "$*" >> {log}
[[ $1 != -c ]] || echo {folder}
if [[ $2 == venv ]]; then mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python"; fi
"""


def test_paths_are_those_of_the_caller(tmp_path):
    """An interpreter that finds a GPU and does nothing notes what pip is told."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(ANY_PYTHON.format(log=log, folder=tmp_path))
    python.chmod(0o755)
    (tmp_path / "my wheels").mkdir()
    here = {**os.environ, "PYTHON": "./python", "OUT": "out"}
    command = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "my wheels"]
    done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"--no-index --find-links {tmp_path}/my wheels -r " in log.read_text()
    assert f" --out {tmp_path}/out" in log.read_text()


def part(name, code, at_most=20, at_least=1):
    return Part(name, [sys.executable, "-c", code], at_most, at_least)


def test_each_part_gets_a_sentence(tmp_path):
    mark = tmp_path / "mark"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))"
    child += "; time.sleep(60)"
    slow = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    parts = [
        part("good", "print('said')"),
        part("slow", slow, at_most=3),
        part("bad", "raise SystemExit(3)"),
        part("large", "", at_least=1000),
    ]
    assert not check(parts, 100, tmp_path, ["a machine"])
    told = (tmp_path / "report.md").read_text()
    assert told.startswith("# One GPU, checked\n\na machine\n")
    assert re.search(r"^- good: done in \d s\.$", told, re.M)
    assert "- slow: stopped at its limit of 3 s; nothing of it is kept.\n" in told
    assert re.search(r"^- bad: FAILED in \d s \(exit code 3\): see log\.txt\.$", told, re.M)
    assert "- large: left out: it wants 1000 s, and " in told
    assert "said" in (tmp_path / "log.txt").read_text()
    assert check(parts[:1], 100, tmp_path, [])
    assert not mark.exists() or not runs(mark.read_text())  # the slow part's child, too


def runs(pid):
    """Whether the process is there, and more than the entry of one that has ended."""
    time.sleep(2)  # a signal is on its way
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_interrupted_says_what_it_has_found(tmp_path):
    """As pytest does of its failures."""
    code = "import time\ntry: time.sleep(9)\nexcept KeyboardInterrupt: print('one failure')"
    assert check([part("tests", code, at_most=1)], 100, tmp_path, [])
    assert "one failure" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("code", "at_least", "good"),
    [
        ("", 1, False),  # done, and nothing is there
        ("time.sleep(9)", 1, False),
        ("{write}", 1, True),
        ("{write}; time.sleep(9)", 1, True),  # a first round that was written counts
        ("{write}; sys.exit(1)", 1, False),
        ("{write}", 1000, False),
    ],
)
def test_what_is_needed_must_be_there_and_of_this_check(code, at_least, good, tmp_path):
    result = tmp_path / "overhead" / "1.4B-here" / "results.json"
    result.parent.mkdir(parents=True)
    result.write_text("an earlier check's")
    code = "import pathlib, sys, time; " + code.format(
        write=f"pathlib.Path({str(result)!r}).write_text('')"
    )
    asked = {"at_least": at_least, "result": "overhead/1.4B-*/results.json"}
    parts = [replace(part("overhead 1.4B", code, at_most=2), **asked, needed=True)]
    assert check(parts, 100, tmp_path, []) == good
    parts = [replace(parts[0], needed=False)]
    assert check(parts, 100, tmp_path, []) == ("exit" not in code)


def test_what_a_gpu_cannot_do_is_left_out_and_no_failure(tmp_path):
    """An A100, of capability 8.0, knows no float8."""
    (float8,) = (part for part in PARTS if part.name == "overhead 1.4B_float8")
    assert check([float8], 500, tmp_path, [], capability=(8, 0))
    told = (tmp_path / "report.md").read_text()
    assert "left out: it needs compute capability 8.9, this GPU has 8.0." in told


def test_a_run_of_the_tests_that_is_cut_short_or_left_out_is_no_success(tmp_path):
    for at_least in (1, 1000):
        tests = part("tests", "import time; time.sleep(9)", at_most=1, at_least=at_least)
        assert not check([replace(tests, needed=True)], 100, tmp_path, [])


def test_files_without_a_gpu_test_are_not_imported():
    files = files_with_gpu_tests()
    assert "tests/test_gpu.py" in files and "tests/test_schedule.py" not in files


def test_other_tests_see_no_gpu():
    wanted = [["-m", "gpu"], ["-x", "-m", "gpu or slow"]]
    others = [[], ["tests/test_gpu_check.py"], ["-m", "slow"], ["-m", "not gpu"]]
    assert all(map(asks_for_gpus, wanted)) and not any(map(asks_for_gpus, others))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" or asks_for_gpus(sys.argv)


def test_parts_are_real_and_begin_within_ten_minutes():
    names = [part.name for part in PARTS]
    assert names[:3] == ["tests", "overhead 1.4B", "overhead 1.4B_float8"]
    assert {part.command[2] for part in PARTS[1:]} <= SETTINGS.keys()
    assert [part.needed for part in PARTS] == [True, True, False, False, False]
    # What is needed may take all that it is given; the rest has what that leaves.
    assert sum(part.at_most for part in PARTS if part.needed) <= 570
    assert len({part.result for part in PARTS}) == len(PARTS)  # none writes over another's


def test_needs_are_what_pip_can_read():
    assert "torchtitan==0.2.2" in needs() and any(need.startswith("pytest") for need in needs())


def without(packages, arguments):
    """Runs Python's ``arguments`` where importing any of ``packages`` fails."""
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({packages!r})); "
    code += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_tests_and_benchmark_want_no_package_that_is_not_asked_for(tmp_path):
    """A GPU's machine without a network may lack one: wandb, for a first."""
    assert NOT_NEEDED and not set(NOT_NEEDED) & set(needs())
    assert "of wandb halted" in without(NOT_NEEDED, [write(tmp_path, "import wandb")]).stderr
    collect = ["-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider"]
    pytest_itself = write(tmp_path, "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))")
    collected = without(NOT_NEEDED, [pytest_itself, *collect, *files_with_gpu_tests()])
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert "tests/test_gpu.py::" in collected.stdout
    worker = ["recipes/overhead/timed_train.py", str(tmp_path / "run.json"), "1"]
    started = without(NOT_NEEDED, [*worker, "--job.config_file", str(tmp_path / "nowhere.toml")])
    assert "nowhere.toml' cannot be read" in started.stderr  # all is imported by then


def write(folder, code):
    (folder / "code.py").write_text(code)
    return str(folder / "code.py")


def test_a_part_sees_the_packages_of_a_python_path(tmp_path, monkeypatch):
    """Where wheels were unpacked into a folder instead of an environment."""
    (tmp_path / "unpacked.py").write_text("there = True")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check([part("good", "import let_titan, unpacked")], 100, tmp_path, [])


@pytest.mark.parametrize(
    ("word", "names"),
    [("float8", ["overhead 1.4B_float8"]), ("", [part.name for part in PARTS]), ("nothing", None)],
)
def test_some_parts_can_be_chosen(word, names, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("gpu_check.check", lambda parts, *_: ran.extend(p.name for p in parts))
    arguments = ["--only", word, "--out", str(tmp_path)]
    if names is None:
        with pytest.raises(SystemExit):
            main(arguments)
        assert (
            "no part's name has that; they are 'tests', 'overhead 1.4B'" in capsys.readouterr().err
        )
    else:
        main(arguments)
    assert ran == (names or [])


@pytest.mark.parametrize(
    ("parts", "seconds", "limits"),
    [
        (PARTS, 570, [290, 250, 120, 240, 150]),
        (PARTS, 300, [290, 250, 120, 240, 150]),
        (PARTS, 1140, [580, 500, 240, 480, 300]),
        (PARTS[2:3], 570, [570]),  # two processes of float8 that compile may want more than 120
    ],
)
def test_parts_have_more_time_where_there_is_more(parts, seconds, limits):
    assert [part.at_most for part in given(parts, seconds)] == limits
