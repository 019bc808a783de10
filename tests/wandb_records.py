"""What wandb writes where it is offline; apart, since the tests marked gpu need no wandb."""

import os
from pathlib import Path

import wandb


def wandb_records(folder: Path) -> list[bytes]:
    """Returns what wandb recorded offline below ``folder``, the oldest run first.

    Its service writes on after a run's end; to take it down is to wait for it.
    """
    wandb.teardown()
    return [p.read_bytes() for p in sorted(folder.rglob("*.wandb"), key=os.path.getmtime)]
