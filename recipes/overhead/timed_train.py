"""One timed run: python recipes/overhead/timed_train.py OUT.json WARMUP --job.config_file ...

Trains as let_titan.train does, in one process, and writes each step's time by phase to OUT.json.
Peak memory is counted anew after WARMUP steps of either half.
"""

import let_titan  # noqa: F401  # isort: skip  # it must be imported before torchtitan

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.tools.utils import get_peak_flops

from let_titan.checks import check_config
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.launch import complete_environment
from let_titan.run.summary import surroundings
from let_titan.train import LetTrainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from overhead.clock import Clock
from overhead.peak import peak_bytes, reset_peak


class TimedTrainer(LetTrainer):
    """LetTrainer with marks between what a step does; nothing else changes.

    Args:
        resets: steps before which peak memory is counted anew.
    """

    def __init__(self, config: LetJobConfig, resets: set[int]) -> None:
        super().__init__(config)
        self.clock = Clock(self.device)
        self.resets = resets
        self.peaks: list[int] = []
        (model,) = self.model_parts
        model.register_forward_pre_hook(lambda *_: self.clock.enter("forward"))
        model.register_forward_hook(lambda *_: self.clock.enter("backward"))  # and the NLL

    def batch_generator(self, data_iterable: Iterable[Any]) -> Iterator[Any]:
        batches = super().batch_generator(data_iterable)
        while True:
            self.clock.enter("data")
            batch = next(batches)
            self.clock.enter("rest")
            yield batch

    def post_dataloading_process(self, *args: Any, **kwargs: Any) -> Any:
        """The teacher's forward, and all that is done to its states outside the student."""
        self.clock.enter("teacher")
        result = super().post_dataloading_process(*args, **kwargs)
        self.clock.enter("rest")
        return result

    def forward_backward_step(self, **kwargs: Any) -> torch.Tensor:
        loss = super().forward_backward_step(**kwargs)
        self.clock.enter("optimizer")  # with clipping
        return loss

    def train_step(self, data_iterator: Iterator[Any]) -> None:
        if self.step in self.resets:
            reset_peak()
        self.clock.next_step()
        super().train_step(data_iterator)
        self.peaks.append(peak_bytes())


def measured_peak_flops(size: int = 1024, turns: int = 20) -> float:
    """Returns the best rate of a square fp32 product here: a CPU's peak is in no table."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(turns):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    complete_environment()
    out, warmup = Path(sys.argv[1]), int(sys.argv[2])
    config = LetConfigManager().parse_args(sys.argv[3:])
    check_config(config)
    half = config.training.steps // 2
    on_gpu = torch.cuda.is_available()
    peak = get_peak_flops(torch.cuda.get_device_name()) if on_gpu else measured_peak_flops()
    trainer = TimedTrainer(config, {warmup + 1, half + warmup + 1})
    trainer.train()
    steps = trainer.clock.steps()
    result = {
        **surroundings(),
        "parameters": trainer.run_folder.facts["parameters"],
        "tokens_per_step": trainer.tokens_per_step,
        "student_flops_per_token": trainer.metrics_processor.num_flops_per_token,
        "teacher": trainer.run_folder.facts["teacher"],
        "peak_flops": peak,
        "steps": [
            {
                "teacher_active": trainer.plan.teacher_in(number),
                "peak_bytes": used,
                "phases": phases,
            }
            for number, (phases, used) in enumerate(zip(steps, trainer.peaks, strict=True), 1)
        ],
    }
    out.write_text(json.dumps(result))
    trainer.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
