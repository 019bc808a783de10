"""Every shell script works in its own repository, whatever the caller has exported."""

import os
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
