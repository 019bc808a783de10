"""[export]: the run's last checkpoint as a Hugging Face folder, when training has ended."""

import os
from pathlib import Path

from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.tools.logging import logger

from let_titan.checks import exported_folder, last_checkpoint
from let_titan.config import LetJobConfig
from let_titan.errors import RunError
from let_titan.export.folder import export
from let_titan.export.source import find_source


def export_at_end(config: LetJobConfig) -> None:
    """Exports a completed run as ``python -m let_titan.export`` does; on rank 0, if [export] asks.

    The ranks have parted before: an export of a large model takes minutes, and whoever waited for
    it in a collective would run into its timeout. A run that is started again after its end
    exports what is not there yet.

    Raises:
        RunError: it failed; the checkpoint is as it was.
    """
    if not config.export.enable or config.checkpoint.create_seed_checkpoint:
        return
    if os.environ["RANK"] != "0":
        return
    checkpoint, out = last_checkpoint(config), exported_folder(config)
    if out.exists():
        logger.info(f"{out} is there: nothing to export.")
        return
    try:
        source = find_source(checkpoint, Path(config.job.dump_folder))
        export(source, out, dtype=TORCH_DTYPE_MAP[config.export.dtype])
    except (ValueError, RunError, OSError) as error:
        raise RunError(
            f"The run is complete and {checkpoint} is as it was saved, but its export failed: "
            f"{error} Then start the same command again, which only exports, or use "
            "python -m let_titan.export."
        ) from error
    logger.info(f"{checkpoint} is exported to {out}, in {config.export.dtype}.")
