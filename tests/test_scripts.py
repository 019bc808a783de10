"""Every shell script works in its own repository, whatever the caller has exported."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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


def test_setup_leaves_what_a_link_leads_to(tmp_path):
    """A checkout beside another one may share its environment by a link."""
    theirs, repository = tmp_path / "theirs", tmp_path / "repository"
    (repository / "scripts").mkdir(parents=True)
    theirs.mkdir()
    (theirs / "let_titan.stamp").write_text("1 /another/checkout")
    for file in ("scripts/setup.sh", "pyproject.toml"):
        shutil.copy(file, repository / file)
    (repository / ".venv").symlink_to(theirs)
    done = subprocess.run(
        ["bash", "scripts/setup.sh"], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"setup: .venv is a link to {theirs}, which may be another checkout's" in done.stderr
    assert [path.name for path in theirs.iterdir()] == ["let_titan.stamp"]
