"""Which files a corpus is: local globs and lists, http(s) addresses, folders on the hub.

Files are sorted by their whole path, so that every rank numbers them alike.
"""

import functools
import glob
import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from let_titan.data.remote import HUB, REMOTE, hub_files, remote_size
from let_titan.errors import NotFoundHere

PILE = "pile"
"""The name of the data set in a config."""


@dataclass(frozen=True)
class File:
    """A file of a corpus.

    Attributes:
        path: local path, ``http(s)://`` or ``hf://`` address.
        size: bytes as stored; None of it is read to find this out.
    """

    path: str
    size: int

    @property
    def name(self) -> str:
        """The path's last part, whose ending says the format; without the query of an address."""
        path = urlsplit(self.path).path if self.path.startswith(REMOTE) else self.path
        return path.rsplit("/", 1)[-1]


def data_files(pattern: str | None, key: str = "dataset_path") -> list[File]:
    """Returns the files of a glob pattern or address (commas part several), sorted, each once.

    Args:
        pattern: where they are.
        key: what the sentence calls it if there are none.

    Raises:
        NotFoundHere: no pattern, or one that matches nothing.
    """
    parts = [part.strip() for part in (pattern or "").split(",") if part.strip()]
    found: dict[str, int] = {}
    for part in parts:
        matches = _matches(part)
        if not matches:
            raise _no_file(part, key)
        found |= matches
    if not found:
        raise _no_file(pattern, key)
    once: dict[str, File] = {}
    real = functools.cache(os.path.realpath)  # asks the file system for each part of a path
    for path, size in sorted(found.items()):
        once.setdefault(_place(path, real), File(path, size))
    return list(once.values())


def _place(path: str, real: Callable[[str], str]) -> str:
    """Returns a file's path with its folder resolved by ``real``, so that spellings do not count.

    A file that is a link is not resolved: a corpus may name the same bytes twice on purpose.
    """
    if path.startswith((HUB, *REMOTE)):
        return path
    folder, name = os.path.split(path)
    return os.path.join(real(folder), name)


def _matches(part: str) -> dict[str, int]:
    if part.startswith(HUB):
        return hub_files(part)
    if part.startswith(REMOTE):
        return {part: remote_size(part)}
    paths = [path for path in glob.glob(part, recursive=True) if Path(path).is_file()]
    return {path: os.stat(path).st_size for path in paths}


def _no_file(pattern: str | None, key: str) -> NotFoundHere:
    return NotFoundHere(
        f"{key} = {pattern!r} matches no file: give the glob of your *.jsonl.zst, *.jsonl, "
        "*.parquet or *.arrow files (relative to where you start), or an hf:// or http address."
    )


def corpus_digest(files: list[File]) -> str:
    """Returns a sha256 over the files' names and sizes in the order in which they are read.

    Folders do not count, so that a corpus may move. The order does: a position in the corpus means
    nothing in another order.
    """
    names = [(file.name, file.size) for file in files]
    return hashlib.sha256(repr(names).encode()).hexdigest()


def by_name(files: list[File]) -> dict[str, File]:
    """Returns {name: file}; files of the same name have the part of their paths that differs."""
    names = {file.name: file for file in files}
    if len(names) == len(files):
        return names
    paths = [file.path.split("/") for file in files]
    folders = zip(*(path[:-1] for path in paths), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, folders))
    return {"/".join(path[shared:]): file for path, file in zip(paths, files, strict=True)}


def file_digests(pattern: str) -> dict[str, str]:
    """Returns {name: sha256} of what local files hold, for results to name their corpus."""
    found = {}
    for name, file in by_name(data_files(pattern)).items():
        with open(file.path, "rb") as raw:
            found[name] = hashlib.file_digest(raw, "sha256").hexdigest()
    return found


def data_fingerprint(name: str, pattern: str | None) -> dict[str, Any]:
    """Returns what tells one corpus from another: its files' names and sizes, and their hash."""
    if name != PILE:
        return {"dataset": name, "path": pattern}
    files = data_files(pattern)
    return {
        "dataset": name,
        "path": pattern,
        "files": {name: file.size for name, file in by_name(files).items()},
        "sha256_of_names_and_sizes": corpus_digest(files),
    }
