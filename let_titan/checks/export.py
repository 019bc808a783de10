"""[export]: the Hugging Face folder that a run writes of its last checkpoint."""

from pathlib import Path

from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.checks.checkpoint import checkpoint_folder
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError


def export_mistakes(config: LetJobConfig) -> Mistakes:
    if not config.export.enable:
        return
    checkpoint, out = config.checkpoint, exported_folder(config)
    if not checkpoint.enable or checkpoint.load_only or checkpoint.last_save_in_hf:
        yield ConfigError(
            "export.enable = true exports the last DCP checkpoint: set checkpoint.enable = true, "
            "and leave checkpoint.load_only and checkpoint.last_save_in_hf off."
        )
    elif out.resolve() == last_checkpoint(config).resolve():
        yield ConfigError(
            f"export.folder = {config.export.folder!r} is the checkpoints' (checkpoint.folder): "
            "choose another one."
        )
    elif out.exists() and config.training.steps not in whole_checkpoints(checkpoint_folder(config)):
        yield ConfigError(
            f"export.enable = true would write to {str(out)!r}, which exists though the run has "
            "not come so far: remove it, or choose another export.folder."
        )


def last_checkpoint(config: LetJobConfig) -> Path:
    """Returns the folder of the checkpoint with which the run ends."""
    return checkpoint_folder(config) / f"step-{config.training.steps}"


def exported_folder(config: LetJobConfig) -> Path:
    """Returns the Hugging Face folder that [export] makes of it."""
    return Path(config.job.dump_folder) / config.export.folder / f"step-{config.training.steps}"
