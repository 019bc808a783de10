"""Cuts the Jargon File into the sample corpus under assets/jargon, in The Pile's line format.

    apt-get download jargon-text
    python scripts/make_sample.py jargon-text_4.4.7-4.1_all.deb

One document is a chapter, a section of an appendix, or a run of consecutive lexicon entries of at
least `MIN_CHARS` characters. Tables of contents and the lexicon's headword lists are left out;
nothing else is, and lines keep their breaks.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

MIN_CHARS = 1000  # a lexicon entry has 600 characters on average: shorter ones share a document
VALIDATION_PERCENT = 6
SEED = 0
ZSTD_LEVEL = 19
TEXT_IN_DEB = "./usr/share/doc/jargon-text/jargon.txt.gz"
META = {"pile_set_name": "Jargon File"}

ENTRY = re.compile(r" {3}:\S")
HEADING = re.compile(r"[A-Z]| {20,}(?:Welcome|Part)\b")
# What opens a list of one-line paragraphs that name what follows; a lone letter heads the lexicon's
INDEX = re.compile(r" {3}Table of Contents$|Glossary$| {2}[0-9A-Z]$")


def read_source(path: Path) -> str:
    """Reads the book from Debian's package, from its `jargon.txt.gz`, or from plain text."""
    if path.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(path)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as tar,
        ):
            for member in tar:
                if member.name == TEXT_IN_DEB and (packed := tar.extractfile(member)):
                    return gzip.decompress(packed.read()).decode()
        raise ValueError(f"{path} holds no {TEXT_IN_DEB}: pass Debian's jargon-text package.")
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()


def drop_indexes(paragraphs: list[str]) -> Iterator[str]:
    """Leaves out each table of contents: its title and the one-line paragraphs that follow."""
    in_index = False
    for paragraph in paragraphs:
        if INDEX.match(paragraph):
            in_index = True
        elif "\n" in paragraph or ENTRY.match(paragraph) or HEADING.match(paragraph):
            in_index = False
        if not in_index:
            yield paragraph


def cut_pieces(text: str) -> list[str]:
    """Cuts the book at its headings and lexicon entries, in order."""
    text = "\n".join(line.rstrip() for line in text.splitlines())
    pieces: list[list[str]] = [[]]
    for paragraph in drop_indexes(text.split("\n\n")):
        if ENTRY.match(paragraph) or HEADING.match(paragraph):
            pieces.append([])
        pieces[-1].append(paragraph)
    return ["\n\n".join(piece).strip("\n") for piece in pieces]


def group_pieces(pieces: list[str]) -> list[str]:
    """Joins consecutive pieces to documents of at least `MIN_CHARS`.

    The lexicon and the prose around it never share a document. What is left over at the end of
    either joins the document before it.
    """
    documents: list[str] = []
    for _, run in itertools.groupby(pieces, key=lambda piece: bool(ENTRY.match(piece))):
        first, current = len(documents), ""
        for piece in run:
            current = f"{current}\n\n{piece}" if current else piece
            if len(current) >= MIN_CHARS:
                documents.append(current)
                current = ""
        if current and len(documents) > first:
            documents[-1] += f"\n\n{current}"
        elif current:
            documents.append(current)
    return documents


def is_validation(document: str) -> bool:
    """Decides by the text alone, so that no text can lie on both sides."""
    digest = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < VALIDATION_PERCENT


def write_split(path: Path, documents: list[str]) -> None:
    """Writes one JSON line a document and prints what README.md quotes."""
    lines = (json.dumps({"text": d, "meta": META}, ensure_ascii=False) for d in documents)
    plain = "".join(f"{line}\n" for line in lines).encode()
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress(plain)
    path.write_bytes(packed)
    print(f"{path}: {len(documents)} documents, {sum(map(len, documents))} characters")
    print(f"  sha256 {hashlib.sha256(packed).hexdigest()}")
    print(f"  sha256 unpacked {hashlib.sha256(plain).hexdigest()}")


def main() -> int:
    """Makes both splits; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="jargon-text's .deb, its jargon.txt.gz, or text")
    parser.add_argument("--out", type=Path, default=Path("assets/jargon"), help="folder to fill")
    args = parser.parse_args()
    try:
        documents = group_pieces(cut_pieces(read_source(args.source)))
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"make_sample: {error}", file=sys.stderr)
        return 2
    random.Random(SEED).shuffle(documents)  # the book is alphabetic
    args.out.mkdir(parents=True, exist_ok=True)
    write_split(args.out / "train.jsonl.zst", [d for d in documents if not is_validation(d)])
    write_split(args.out / "validation.jsonl.zst", [d for d in documents if is_validation(d)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
