"""Names a run for Weights & Biases: LET and its baseline in one group, a resume in one run.

torchtitan's logger reads names from the environment. What the user has set there stands.
"""

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchtitan.components.metrics import BaseLogger

from let_titan.checks.checkpoint import resume_step
from let_titan.config import LetJobConfig
from let_titan.run.record import COST_KEYS, TRAIN_KEYS, VALIDATION_KEY
from let_titan.runs import FILES, Line, read_lines
from let_titan.wandb_account import PROJECT, is_silent

NAMES = {
    **TRAIN_KEYS,
    **COST_KEYS,
    "val_loss": VALIDATION_KEY,
    "val_bits_per_byte": "validation_metrics/bits_per_byte",
}


@contextmanager
def wandb_names(job_config: LetJobConfig, rank: int) -> Iterator[None]:
    """Names the run that torchtitan's logger starts within; the environment is put back after.

    With metrics.save_for_all_ranks every rank has a run of its own, else rank 0 alone.

    wandb is to show what metrics.jsonl holds, but cannot delete points. So a run that resumes from
    before its last logged point goes on in a new wandb run of the same name, which first gets the
    points up to the checkpoint; the old wandb run keeps its own.
    """
    mine: dict[str, str] = {}
    earlier: list[Line] = []
    metrics = job_config.metrics
    if metrics.enable_wandb and (rank == 0 or metrics.save_for_all_ranks):
        names, earlier = name_run(job_config, rank)
        mine = {name: value for name, value in names.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)
    run = current_run()
    if run is not None and "WANDB_RUN_ID" in mine:
        for line in earlier:
            run.log(as_logged(line), step=line["step"])


def name_run(job_config: LetJobConfig, rank: int) -> tuple[dict[str, str], list[Line]]:
    """Returns the WANDB_* variables of a rank's run, and the lines that its wandb run lacks.

    metrics.jsonl has rank 0's figures, so no other rank's run is given them.
    """
    if is_silent():
        return {"WANDB_MODE": "disabled"}, []
    folder = Path(job_config.job.dump_folder).absolute()
    start = resume_step(job_config)
    lines = logged(folder) if start > 0 else []
    suffix = f"-rank_{rank}" if rank else ""
    path = folder / f"wandb_run_id{suffix}"
    goes_on = path.exists() and start > 0 and all(line["step"] <= start for line in lines)
    if not goes_on:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8])
    names = {
        "WANDB_PROJECT": PROJECT,
        "WANDB_RUN_NAME": folder.name + suffix,
        "WANDB_RUN_GROUP": folder.parent.name,
        "WANDB_RUN_ID": path.read_text().strip(),
        "WANDB_RESUME": "allow",
    }
    lacking = [] if goes_on or rank else [line for line in lines if line["step"] <= start]
    return names, lacking


def logged(folder: Path) -> list[Line]:
    """Returns the lines of an earlier start; none where there was none."""
    path = folder / "metrics.jsonl"
    return read_lines(path) if path.exists() else []


def as_logged(line: Line) -> dict[str, Any]:
    """Returns a line of metrics.jsonl under the names that torchtitan logs."""
    found = {NAMES[k]: value for k, value in line.items() if k in NAMES and value is not None}
    if line.get("tokens_per_s") is not None:  # torchtitan's figure is per device
        found["throughput(tps)"] = line["tokens_per_s"] / int(os.environ.get("WORLD_SIZE", 1))
    return found


def current_run() -> Any:
    """Returns the wandb run of this process, None without one; imports nothing."""
    return getattr(sys.modules.get("wandb"), "run", None)


class WandbFiles(BaseLogger):
    """Keeps metrics.jsonl and summary.json with the wandb run, to be compared by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self) -> None:
        run = current_run()
        if run is not None:
            for path in (self.folder / name for name in FILES):
                if path.exists():
                    run.save(path.absolute(), self.folder.absolute(), policy="end", glob=False)
