"""The Hugging Face hub: whether it answers, and what it has of a teacher."""

import functools
import os
import tempfile
from pathlib import Path

from let_titan.errors import ConfigError, writing
from let_titan.teacher.convert import convert_bin

TIMEOUT_S = 4.0

ELSEWHERE = ["*/*", "consolidated*", "model.*.safetensors"]
"""The same weights once more: for other libraries, Mistral's own, and those of another dtype."""


@functools.cache
def answers() -> bool:
    """Whether the hub can be reached, asked once a process; if not, only the cache is searched.

    huggingface_hub itself retries for 23 seconds before it gives up, for minutes where nothing
    answers (measured with 2.4).
    """
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # of requests, httpx or httpx2, by huggingface_hub's version
        return False
    return True


def download(checkpoint: str, out: Path, trust_remote_code: bool, revision: str) -> None:
    """Takes a hub id's safetensors, or its ``.bin`` weights where it has none, to ``out``."""
    from huggingface_hub import snapshot_download

    text = ["*.json", "*.model", "*.txt", *(["*.py"] if trust_remote_code else [])]
    fetch = functools.partial(
        snapshot_download,
        checkpoint,
        revision=revision or None,
        ignore_patterns=ELSEWHERE,
        local_files_only=not answers(),
    )
    try:
        folder = Path(fetch(allow_patterns=[*text, "*.safetensors"]))
        converts = not any(folder.glob("*.safetensors"))
        if converts:
            folder = Path(fetch(allow_patterns=[*text, "*.bin"]))
    except OSError as error:
        raise ConfigError(
            f"teacher.checkpoint = {named(checkpoint, revision)} cannot be downloaded "
            f"({str(error).splitlines()[0]}): check the name and the network, or give a local "
            "folder."
        ) from error
    if converts:
        return convert_bin(folder, out, trust_remote_code)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # Replaced in one move: other nodes may be making the same link, or an old one may dangle.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            link = Path(scratch) / out.name
            link.symlink_to(folder, target_is_directory=True)
            os.replace(link, out)


def commit_of(folder: Path) -> str | None:
    """Returns the hub's commit of a teacher's folder; None if it is not the hub's own snapshot."""
    snapshot = folder.resolve()  # models--OWNER--NAME/snapshots/COMMIT
    return snapshot.name if snapshot.parent.name == "snapshots" else None


def named(checkpoint: str, revision: str) -> str:
    """Returns a checkpoint as a sentence names it, with its revision, if it has one."""
    return f"{checkpoint!r} at teacher.revision = {revision!r}" if revision else repr(checkpoint)
