"""Every shell script works in its own repository, whatever the caller has exported."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

SCRIPTS = [path for path in sorted(Path("scripts").glob("*.sh")) if "cd " in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_cdpath_does_not_lead_into_another_folder(script, tmp_path):
    head, found, _ = script.read_text().partition("BASH_SOURCE[0]}")
    assert found
    rest = script.read_text()[len(head) :].splitlines()[0]
    copy = tmp_path / "repository" / script
    for folder in (copy.parent, tmp_path / "other" / script.parent):
        folder.mkdir(parents=True)
    copy.write_text(f"{head}{rest}\npwd\n")
    here = {**os.environ, "CDPATH": str(tmp_path / "other")}
    command = ["bash", str(script)]
    done = subprocess.run(
        command, cwd=tmp_path / "repository", env=here, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{tmp_path / 'repository'}\n"


def test_the_scripts_that_change_their_folder_are_found():
    assert {path.name for path in SCRIPTS} >= {"demo.sh", "setup.sh", "test.sh"}


def checkout(folder):
    """Makes a folder with what setup.sh needs before it installs anything."""
    (folder / "scripts").mkdir(parents=True)
    for file in ("scripts/setup.sh", "pyproject.toml"):
        shutil.copy(file, folder / file)
    return folder


def set_up(folder, **environment):
    command, environment = ["bash", "scripts/setup.sh"], {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.14", "3.15"])
def test_setup_takes_the_pythons_for_which_there_is_a_torch(tmp_path, version):
    repository, interpreter = checkout(tmp_path / "repository"), tmp_path / "interpreter"
    numbers = tuple(map(int, version.split(".")))
    told = f"import sys; sys.version_info = {numbers}"
    interpreter.write_text(
        f'#!/bin/sh\n[ $1 = -c ] || exit 3\nexec {sys.executable} -c "{told}; $2"\n'
    )
    interpreter.chmod(0o755)
    done = set_up(repository, PYTHON=str(interpreter))
    refused = f"setup: '{interpreter}' is missing or not Python 3.11 to 3.14" in done.stderr
    allowed = SpecifierSet(
        tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert (done.returncode == 2) == refused == (version not in allowed)
    assert refused == (version in ("3.10", "3.15"))


def test_setup_leaves_what_a_link_leads_to(tmp_path):
    """A checkout beside another one may share its environment by a link."""
    repository, theirs = checkout(tmp_path / "repository"), tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "let_titan.stamp").write_text("1 /another/checkout")
    (repository / ".venv").symlink_to(theirs)
    done = set_up(repository)
    assert done.returncode == 2
    assert f"setup: .venv is a link to {theirs}, which may be another checkout's" in done.stderr
    assert [path.name for path in theirs.iterdir()] == ["let_titan.stamp"]


INTERPRETER = """#!/bin/sh
case "$1 $2" in
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip") shift 2 && echo "$@" >> pip.log ;;
    *"import sys, torch"*) exit 1 ;; # no GPU that torch can use
esac
"""


def test_torch_comes_from_the_index_that_was_named(tmp_path):
    """Once named, also after pyproject.toml has changed; GPUs that torch cannot use are told of."""
    repository, programs = checkout(tmp_path / "repository"), tmp_path / "programs"
    programs.mkdir()
    for name, text in (("python", INTERPRETER), ("nvidia-smi", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    here = {"PATH": path, "PYTHON": str(programs / "python"), "TORCH_INDEX": ""}

    def installed(**environment):
        (repository / "pip.log").write_text("")
        done = set_up(repository, **{**here, **environment})
        assert done.returncode == 0, done.stderr
        lines = (repository / "pip.log").read_text().splitlines()
        return [line for line in lines if line.startswith("install")], done

    everything = "install -e .[dev]"
    pypi, done = installed()
    assert pypi == [everything] and "torch cannot use this machine's GPUs" in done.stderr
    assert "TORCH_INDEX=https://" in done.stderr
    assert installed()[0] == []

    index = "https://wheels/cu126"
    torch, rest = installed(TORCH_INDEX=index)[0]
    assert torch.startswith(f"install --no-deps --force-reinstall --index-url {index} torch>=")
    assert rest == everything
    assert installed(TORCH_INDEX=index)[0] == installed()[0] == []
    with (repository / "pyproject.toml").open("a") as file:
        file.write("# another dependency\n")
    assert installed()[0] == [torch, rest]
