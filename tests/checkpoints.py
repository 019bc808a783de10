"""Folders of checkpoints, made, cut short and damaged."""

import shutil

from let_titan.checkpoint import folders
from tests.resumed import STEPS

LAST = f"step-{STEPS}"


def steps_of(folder):
    return sorted(folders.whole_checkpoints(folder))


def cut(run, step):
    """Leaves a run's checkpoints up to ``step`` alone."""
    for number, path in folders.step_folders(run / "checkpoint").items():
        if number > step:
            shutil.rmtree(path)


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


DAMAGE = {
    "flipped byte": lambda file: file.write_bytes(file.read_bytes()[:-9] + b"X" + bytes(8)),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "missing": lambda file: file.unlink(),
}
