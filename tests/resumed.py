"""A short run that saves every step; the same again from each of its checkpoints."""

import json
import shutil

import torch

from let_titan.train import LetTrainer
from tests.support import Lab, weights

STEPS, S_STOP = 6, 3
SAVED = {
    "checkpoint__enable": True,
    "checkpoint__interval": 1,
    "checkpoint__keep_latest_k": 0,
    "training__mixed_precision_param": "float32",
    "validation__enable": True,
    "validation__dataset": "pile",
    "validation__steps": 1,
    "validation__seq_len": 64,
    "validation__freq": 2,
    "compile__enable": False,
}
TIMES = ("elapsed_s", "tokens_per_s", "memory_gib")


def train(lab, **changes):
    """Trains to the end; returns metrics.jsonl without its times, and what is there at the end."""
    config = lab.config(
        {"s_stop": S_STOP},
        **{**SAVED, "validation__dataset_path": str(lab.assets / "validation.jsonl"), **changes},
    )
    trainer = LetTrainer(config)
    try:
        trainer.train()
        trainer.run_folder.end("completed")
        state = {
            name: value.full_tensor() if hasattr(value, "full_tensor") else value
            for name, value in trainer.optimizers.state_dict().items()
        }
        lines = [
            json.loads(line)
            for line in (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
        ]
        return {
            "lines": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
            "weights": weights(trainer.model_parts[0]),
            "optimizer": {k: v for k, v in state.items() if isinstance(v, torch.Tensor)},
            "settings": [
                {key: value for key, value in group.items() if key != "params"}
                for optimizer in trainer.optimizers
                for group in optimizer.param_groups
            ],
            "loaded a teacher": trainer.run_folder.facts["teacher"] is not None,
            "teacher is gone": trainer.phase.slot.teacher is None,
        }
    finally:
        trainer.close()


def uninterrupted_and_resumed(assets, folder, **changes):
    """Trains once, then again from each of its checkpoints; rank 0 copies folders."""
    lab = Lab(assets, folder)
    results = {"whole": train(lab, **changes)}
    rank = torch.distributed.get_rank()
    for step in (S_STOP - 1, S_STOP, S_STOP + 1):
        other = Lab(assets, folder / f"from-{step}")
        if rank == 0:
            shutil.copytree(folder / "run", other.folder / "run")
            for later in range(step + 1, STEPS + 1):
                shutil.rmtree(other.folder / "run" / "checkpoint" / f"step-{later}")
        torch.distributed.barrier()
        results[step] = train(other, **changes)
    return results


def assert_resumes_exactly(results):
    whole = results.pop("whole")
    assert [line["step"] for line in whole["lines"] if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in whole["lines"] if "val_loss" in line] == [0, 2, 3, 4, 6]
    for step, resumed in results.items():
        assert resumed["lines"] == whole["lines"], step
        assert resumed["teacher is gone"]
        assert resumed["settings"] == whole["settings"]
        for part in ("weights", "optimizer"):
            assert resumed[part].keys() == whole[part].keys()
            for name, wanted in whole[part].items():
                assert torch.equal(resumed[part][name], wanted), (step, name)
