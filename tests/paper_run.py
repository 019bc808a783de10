"""Trains on paper: python -m tests.paper_run ASSETS FOLDER RUNS

RUNS is a JSON list of [let, changes], as ``Lab.config`` takes them; the last line printed is JSON,
too: for each run, where each step has waited for the device.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tests import paper

paper.claim()

import torch.distributed as dist  # noqa: E402
from torchtitan.tools.utils import device_type  # noqa: E402

from tests.support import Lab, LetTrainer  # noqa: E402
from tests.world import do_not_linger, free_port, set_rank  # noqa: E402


class Watched(LetTrainer):
    """Keeps what each step, with its validation, has waited for."""

    def train_step(self, data_iterator: Any) -> None:
        begin = len(paper.waits)
        super().train_step(data_iterator)
        steps.append(sorted(paper.waits[begin:]))


steps: list[list[str]] = []


def main() -> None:
    assert device_type == paper.NAME
    do_not_linger()
    set_rank(0, 1, free_port())
    dist.init_process_group("gloo")
    assets, folder, runs = sys.argv[1:]
    found = []
    for let, changes in json.loads(runs):
        lab = Lab(Path(assets), Path(folder) / str(len(found)))
        lab.folder.mkdir()
        config = lab.config(let, **changes)
        steps.clear()
        with paper.OnPaper():
            trainer = Watched(config)
            trainer.train()
            trainer.close()
        found.append(list(steps))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
