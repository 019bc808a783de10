"""Folders that the run writes: tried before anything is loaded, and left as they were."""

import tempfile
from pathlib import Path

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.disk import existing_parent
from let_titan.errors import ConfigError


def folder_mistakes(config: LetJobConfig) -> Mistakes:
    dump = Path(config.job.dump_folder)
    yield from unwritable("job.dump_folder", dump)
    for key, name in subfolders(config).items():
        yield from unwritable(f"job.dump_folder / {key}", dump / name)
    if config.job.save_config_file is None:
        return
    file = dump / config.job.save_config_file
    yield from unwritable("job.save_config_file", file.parent)
    if file == dump or file.is_dir():
        yield ConfigError(f"job.save_config_file = {str(file)!r} is a folder: name a file.")


def subfolders(config: LetJobConfig) -> dict[str, str]:
    """Returns the folders within the dump folder that this config will write, by their keys."""
    metrics, profiling, checkpoint = config.metrics, config.profiling, config.checkpoint
    keys = {
        "export.folder": (config.export.enable, config.export.folder),
        "checkpoint.folder": (checkpoint.enable and not checkpoint.load_only, checkpoint.folder),
        "metrics.save_tb_folder": (
            metrics.enable_tensorboard or metrics.enable_wandb,
            metrics.save_tb_folder,
        ),
        "comm.save_traces_folder": (config.comm.trace_buf_size > 0, config.comm.save_traces_folder),
        "profiling.save_traces_folder": (profiling.enable_profiling, profiling.save_traces_folder),
        "profiling.save_memory_snapshot_folder": (
            profiling.enable_memory_snapshot,
            profiling.save_memory_snapshot_folder,
        ),
    }
    return {key: name for key, (used, name) in keys.items() if used}


def shared_with(config: LetJobConfig) -> str | None:
    """Returns which folder that a start makes is that of the checkpoints or below it, by its key.

    To torchtitan a folder of checkpoints that exists is one to go on from.
    """
    dump = Path(config.job.dump_folder)
    checkpoints = (dump / config.checkpoint.folder).resolve()
    late = ("checkpoint.folder", "export.folder")  # made by a save, and at the end
    folders = {"job.dump_folder": "", **subfolders(config)}
    if config.job.save_config_file is not None:
        folders["job.save_config_file"] = str(Path(config.job.save_config_file).parent)
    for key, name in folders.items():
        if key not in late and (dump / name).resolve().is_relative_to(checkpoints):
            return key
    return None


def unwritable(key: str, folder: Path) -> Mistakes:
    """Makes a file where ``folder`` is, or would be made, and takes it away again.

    Permission bits do not tell: root ignores them, and a file system can be read-only or full.
    """
    ancestor = existing_parent(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=ancestor, prefix=".let_titan-"):
            pass
    except OSError as error:
        yield ConfigError(
            f"{key} = {str(folder)!r} cannot be written ({ancestor}: {error.strerror}): choose "
            "another folder."
        )
