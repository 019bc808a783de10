"""Folders that the run writes: tried before anything is loaded, and left as they were."""

import tempfile
from pathlib import Path

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError


def folder_mistakes(config: LetJobConfig) -> Mistakes:
    dump = Path(config.job.dump_folder)
    yield from unwritable("job.dump_folder", dump)
    if config.checkpoint.enable and not config.checkpoint.load_only:
        folder = dump / config.checkpoint.folder
        yield from unwritable("job.dump_folder / checkpoint.folder", folder)
    if config.job.save_config_file is not None:
        file = dump / config.job.save_config_file
        yield from unwritable("job.save_config_file", file.parent)
        if file.is_dir():
            yield ConfigError(f"job.save_config_file = {str(file)!r} is a folder: name a file.")


def unwritable(key: str, folder: Path) -> Mistakes:
    """Makes a file where ``folder`` is, or would be made, and takes it away again.

    Permission bits say little: root passes them, and a file system can be read-only or full.
    """
    ancestor = folder.absolute()
    while not ancestor.exists():
        ancestor = ancestor.parent
    try:
        with tempfile.NamedTemporaryFile(dir=ancestor, prefix=".let_titan-"):
            pass
    except OSError as error:
        yield ConfigError(
            f"{key} = {str(folder)!r} cannot be written ({ancestor}: {error.strerror}): choose "
            "another folder."
        )
