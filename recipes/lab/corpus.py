"""Deals a corpus in The Pile's format into the lab's three disjoint parts, by document."""

import glob
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import zstandard

VALIDATION_PERCENT = 2
PIECE = 2_000
"""Characters: documents are cut and their pieces shuffled, so that even a short run reads a fair
sample of the corpus, from wherever in a document, as validation does."""
SEED = 0


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


def number_of(text: str) -> int:
    """Returns a number of 64 bits that depends on the text alone: equal texts go alike."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def part_of(text: str) -> str:
    """Returns "validation", "teacher" or "student"."""
    percent = number_of(text) % 100
    if percent < VALIDATION_PERCENT:
        return "validation"
    return "teacher" if percent < (100 + VALIDATION_PERCENT) // 2 else "student"


def pieces(text: str, part: str) -> list[str]:
    """Cuts a document; of one for validation one piece counts: many documents in few tokens."""
    starts = range(0, len(text), PIECE)
    if part == "validation":
        start = starts[number_of(text) // 100 % len(starts)]
        starts = range(start, start + 1)
    return [text[i : i + PIECE] for i in starts]


def deal(pattern: str, folder: Path) -> None:
    """Writes ``folder``/{teacher,student,validation}.jsonl.zst, shuffled."""
    parts: dict[str, list[bytes]] = {"teacher": [], "student": [], "validation": []}
    for document in documents(pattern):
        text = str(document["text"])
        name = part_of(text)
        parts[name] += [line_of(piece, document) for piece in pieces(text, name)]
    write_shuffled(parts, folder)


def line_of(piece: str, document: Mapping[str, object]) -> bytes:
    """Returns a piece of a document as a line of a file."""
    return json.dumps({"text": piece, "meta": document["meta"]}).encode() + b"\n"


def write_shuffled(parts: Mapping[str, list[bytes]], folder: Path) -> None:
    """Writes ``folder``/NAME.jsonl.zst of each part, its lines shuffled, in place, by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        random.Random(SEED).shuffle(lines)
        with zstandard.open(folder / f"{name}.jsonl.zst", "wb") as out:
            out.write(b"".join(lines))


def fingerprints(root: Path, texts: Iterable[Path], files: Iterable[Path]) -> dict[str, str]:
    """Returns the sha256 of what runs read, by path from ``root``; of ``texts``, of their text."""
    found = {path: sha256_of_text(path) for path in texts}
    found |= {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {str(path.relative_to(root)): digest for path, digest in found.items()}


def sha256_of_text(path: Path) -> str:
    """Returns the sha256 of what a *.zst file holds: compressors differ in the file itself."""
    digest = hashlib.sha256()
    with zstandard.open(path, "rb") as raw:
        while block := raw.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
