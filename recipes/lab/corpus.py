"""Deals a corpus in The Pile's format into the lab's three disjoint parts, by document."""

import glob
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import zstandard

VALIDATION_PERCENT = 2
PIECE = 8_000
"""Characters: a longer document is cut, so that one book does not fill a stream for a whole run."""
VALIDATION_PIECE = 2_000
"""Characters of each validation document, from its start: many documents in few tokens."""


def documents(pattern: str) -> Iterator[dict[str, object]]:
    """Yields {"text", "meta"} of every file of a glob pattern, sorted; *.zst or plain.

    Raises:
        FileNotFoundError: no file matches.
    """
    files = sorted(glob.glob(pattern))
    if not files:
        raise FileNotFoundError(f"No file matches {pattern!r}: give --corpus a glob of *.jsonl.zst")
    for file in files:
        if file.endswith(".zst"):
            with zstandard.open(file, "rb") as raw:
                yield from map(json.loads, io.TextIOWrapper(raw, encoding="utf-8"))
        else:
            with open(file, encoding="utf-8") as lines:
                yield from map(json.loads, lines)


def part_of(text: str) -> str:
    """Returns "validation", "teacher" or "student" by a hash of the text: equal texts go alike."""
    percent = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
    if percent < VALIDATION_PERCENT:
        return "validation"
    return "teacher" if percent < (100 + VALIDATION_PERCENT) // 2 else "student"


def pieces(text: str, part: str) -> list[str]:
    """Cuts a document into what the part takes of it."""
    if part == "validation":
        return [text[:VALIDATION_PIECE]]
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]


def deal(pattern: str, folder: Path) -> None:
    """Writes ``folder``/{teacher,student,validation}.jsonl.zst."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        parts = {
            name: stack.enter_context(zstandard.open(folder / f"{name}.jsonl.zst", "wb"))
            for name in ("teacher", "student", "validation")
        }
        for document in documents(pattern):
            text = str(document["text"])
            name = part_of(text)
            for piece in pieces(text, name):
                line = json.dumps({"text": piece, "meta": document["meta"]})
                parts[name].write(line.encode() + b"\n")


def sha256_of_text(path: Path) -> str:
    """Returns the sha256 of what a *.zst file holds: compressors differ in the file itself."""
    digest = hashlib.sha256()
    with zstandard.open(path, "rb") as raw:
        while block := raw.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
