"""Where a run is read from: its folder, or wandb, which keeps the same two files."""

import tempfile
from pathlib import Path

from let_titan.runs import FILES, Run

PREFIX = "wandb:"


def place(source: str) -> str:
    """Returns one name for a source, however it is written: "let/" is the run of "let"."""
    return source if source.startswith(PREFIX) else str(Path(source).resolve())


def load(source: str) -> Run:
    """Reads a run.

    Args:
        source: a folder, or "wandb:ENTITY/PROJECT/NAME" with the run's name or id.

    Raises:
        ValueError: it cannot be read; the message names why and the cure.
    """
    if not source.startswith(PREFIX):
        return Run.load(source)
    project, _, name = source.removeprefix(PREFIX).rpartition("/")
    if project.count("/") != 1 or not name:
        raise ValueError(f"{source} is no wandb run: write wandb:ENTITY/PROJECT/NAME.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        download(project, name, folder)
        return Run.load(folder)


def download(project: str, name: str, folder: Path) -> None:
    """Brings the files of the newest run of this name, or of this id, into ``folder``."""
    import wandb  # takes seconds, and folders need none of it

    query = {"$or": [{"display_name": name}, {"name": name}]}  # "name" is the id there
    try:
        run = next(iter(wandb.Api().runs(project, filters=query, order="-created_at")), None)
        if run is not None:
            for file in run.files(names=list(FILES)):
                file.download(root=str(folder), exist_ok=True)
    except Exception as error:  # some are of wandb's private modules
        raise ValueError(
            f"wandb did not give {project}/{name} ({error}): give the run's folder instead."
        ) from None
    if run is None:
        raise ValueError(f"{project} on wandb has no run {name!r}: look at its name or id.")
    missing = [file for file in FILES if not (folder / file).exists()]
    if missing:
        raise ValueError(
            f"{project}/{name} on wandb has no {missing[0]}, which a run sends when it ends: give "
            "the run's folder instead."
        )
