"""Names a run for Weights & Biases: LET and its baseline in one group, a resume in one run.

torchtitan's logger reads names from the environment. What the user has set there stands.
"""

import netrc
import os
import uuid
from pathlib import Path

from torchtitan.config import JobConfig
from torchtitan.tools.logging import logger


def prepare_wandb(job_config: JobConfig) -> None:
    """Fills the WANDB_* variables that are not set; without an account wandb stays silent."""
    if not job_config.metrics.enable_wandb:
        return
    if "WANDB_MODE" not in os.environ and not has_account():
        os.environ["WANDB_MODE"] = "disabled"
        logger.info(
            "wandb: no account on this machine, nothing is sent (WANDB_MODE=offline records to the "
            "dump folder, wandb login sends)."
        )
    if os.environ.get("WANDB_MODE") == "disabled":
        return
    folder = Path(job_config.job.dump_folder).absolute()
    defaults = {
        "WANDB_PROJECT": "let_titan",
        "WANDB_RUN_NAME": folder.name,
        "WANDB_RUN_GROUP": folder.parent.name,
        "WANDB_RUN_ID": run_id(folder),
        "WANDB_RESUME": "allow",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def has_account() -> bool:
    """Whether an API key is at hand: WANDB_API_KEY, or the ~/.netrc that ``wandb login`` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].rstrip("/")
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def run_id(folder: Path) -> str:
    """Returns the run's id, kept in the dump folder so that a resume goes on in the same run."""
    path = folder / "wandb_run_id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8])
    return path.read_text().strip()
