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
