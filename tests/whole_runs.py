"""Whole tiny runs, from their first step to their end."""

from typing import Any

from let_titan.train import LetTrainer
from tests.support import Lab


def trained(lab: Lab, let: dict[str, Any] | None, **changes: Any) -> LetTrainer:
    """Trains a run of four steps, with a checkpoint of each; returns its closed trainer."""
    keys = {
        "training__steps": 4,
        "checkpoint__enable": True,
        "checkpoint__interval": 1,
        "checkpoint__keep_latest_k": 0,
    }
    trainer = LetTrainer(lab.config(let, **{**keys, **changes}))
    try:
        trainer.train()
        trainer.run_folder.end("completed")
        return trainer
    finally:
        trainer.close()
