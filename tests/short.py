"""A run of two steps to go on from."""

from pathlib import Path
from typing import Any

from let_titan.train import LetTrainer
from tests.support import Lab

S_STOP = 2
SAVED = {"checkpoint__enable": True, "checkpoint__interval": 1, "checkpoint__keep_latest_k": 0}


def validated(lab: Lab) -> dict[str, Any]:
    """Returns the settings of a run that is validated on 6 sequences."""
    sizes = {"steps": 2, "local_batch_size": 3, "seq_len": 64}
    data = {"dataset": "pile", "dataset_path": str(lab.assets / "validation.jsonl")}
    return {f"validation__{key}": x for key, x in {"enable": True, **data, **sizes}.items()}


def make_short_run(lab: Lab) -> Path:
    """Trains it; step-1 is a whole checkpoint, step-2 holds the model alone."""
    short = {"training__steps": 2, "checkpoint__last_save_model_only": True}
    trainer = LetTrainer(lab.config({"s_stop": S_STOP}, **SAVED, **validated(lab), **short))
    trainer.train()
    trainer.run_folder.end("completed")
    trainer.close()
    return lab.folder / "run"
