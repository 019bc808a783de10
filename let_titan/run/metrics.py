"""torchtitan's metrics with LET's: lambda, alignment, the teacher's FLOPs, metrics.jsonl."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.metrics import BaseLogger, LoggerContainer, MetricsProcessor
from torchtitan.distributed import ParallelDims
from torchtitan.tools.logging import logger
from torchtitan.tools.utils import device_type

from let_titan.config import LetJobConfig
from let_titan.plan import resolve_plan
from let_titan.run.folder_lock import FolderLock
from let_titan.run.record import MetricsFile
from let_titan.run.summary import write_summary
from let_titan.run.wandb import WandbFiles, wandb_names


class LetMetricsProcessor(MetricsProcessor):
    """Adds LET's figures to every train line, on the console and in every logger.

    Attributes:
        always: steps that are logged whatever the interval.
        is_last: set by the trainer; whether a signal makes this step the last, equal on all ranks.
        looks_every: steps between two looks of auto stop; 0 without it, or without a teacher.
        let_figures: set by the trainer; called by all ranks at a log step, since it reduces.
        largest_loss: set under context parallelism, in the place of global_max_loss; reduces, too.
        tokens_of_step: set by the trainer; how many ids a step has on this rank.
        file: metrics.jsonl, on rank 0 only.
        folder_lock: keeps other runs out of the folder.
    """

    is_last: Callable[[], bool] = staticmethod(lambda: False)
    let_figures: Callable[[], dict[str, float]] | None = None
    largest_loss: Callable[[], float] | None = None
    tokens_of_step: int
    file: MetricsFile | None = None
    logger: BaseLogger
    _boards: BaseLogger  # TensorBoard and wandb: all loggers but our own file

    def __init__(self, job_config: LetJobConfig, parallel_dims: ParallelDims) -> None:
        rank = dist.get_rank()
        folder = Path(job_config.job.dump_folder)
        self.folder_lock = FolderLock(folder, rank == 0)
        self.folder_lock.take()  # before any logger writes there, or the config is saved
        with wandb_names(job_config, rank):
            super().__init__(job_config, parallel_dims)
        self._boards = self.logger
        self.always = {resolve_plan(job_config).s_stop, job_config.training.steps}
        let = job_config.let
        self.looks_every = let.diagnostics_freq if let.enable and let.auto_stop else 0
        if rank == 0:
            if job_config.job.save_config_file is not None:
                write_summary(folder / job_config.job.save_config_file, job_config.to_dict())
            self.file = MetricsFile(folder / "metrics.jsonl", parallel_dims.world_size)
            loggers = LoggerContainer()
            if job_config.metrics.enable_wandb:
                loggers.add_logger(WandbFiles(folder))  # closed before wandb's own logger
            loggers.add_logger(self.logger)
            loggers.add_logger(self.file)
            self.logger = loggers

    def should_log(self, step: int) -> bool:
        """As torchtitan, and at s_stop and at the end, so that no window mixes the two phases.

        Any look of auto stop may turn out to be s_stop. A stop by a signal is an end, too: without
        a line, the steps since the last one would be lost to the log.
        """
        look = self.looks_every > 0 and step % self.looks_every == 0
        asked = step in self.always or look or self.is_last()
        return asked or super().should_log(step)

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Logs as torchtitan does, with LET's figures beside its own.

        Under a pipeline the losses come from the last stage; the others give zero.
        """
        if self.largest_loss is not None:
            global_max_loss = self.largest_loss()
        pipeline = self.parallel_dims.get_optional_mesh("pp")
        if pipeline is not None:
            losses = torch.tensor([global_avg_loss, global_max_loss], device=device_type)
            dist.all_reduce(losses, group=pipeline.get_group())
            global_avg_loss, global_max_loss = losses.tolist()
        figures = self.let_figures() if self.let_figures else {}
        seconds = {"time_metrics/end_to_end(s)": self._seconds_per_step()}
        super().log(
            step,
            global_avg_loss,
            global_max_loss,
            grad_norm,
            extra_metrics={**(extra_metrics or {}), **figures, **seconds},
        )
        if figures.get("let/teacher_active"):
            logger.info(
                f"{self.color.red}step: {step:2}  "
                f"{self.color.green}lambda: {figures['let/lambda']:.5f}  "
                f"{self.color.orange}{measured(figures)}{self.color.reset}"
            )

    def _seconds_per_step(self) -> float:
        """Returns the time of a step since the last line, in the place of torchtitan's figure.

        That divides by ``metrics.log_freq``, and windows that end at s_stop, at the end or after a
        validation have fewer steps.
        """
        seconds = time.perf_counter() - self.time_last_log
        return seconds * self.tokens_of_step / self.ntokens_since_last_log

    def log_diagnostics(self, step: int, found: dict[str, Any]) -> None:
        """Logs what ``alignment.Diagnostics`` found in ``step``: a line, and a curve a number."""
        if self.file is not None:
            self.file.note_diagnostics(step, found)
        self._boards.log({f"diagnostics/{name}": x for name, x in curves(found).items()}, step)


def curves(found: dict[str, Any]) -> dict[str, float]:
    """Names each of the diagnostics' numbers, e.g. "block_cosine/pair_1/block_2"."""
    flat = {}
    for pair, cosines in enumerate(found["block_cosine"], start=1):
        for block, cosine in enumerate(cosines, start=1):
            flat[f"block_cosine/pair_{pair}/block_{block}"] = cosine
        for name in ("grad_cosine", "grad_ratio"):
            flat[f"{name}/pair_{pair}"] = found[name][pair - 1]
    return flat


def measured(figures: dict[str, Any]) -> str:
    """Writes the figures of LET, or of distillation, as text for the console."""
    names = ("align_cosine", "align_loss", "kd_loss", "kd_agreement")
    found = {name: figures.get(f"let/{name}") for name in names}
    return "  ".join(f"{name}: {value:.4f}" for name, value in found.items() if value is not None)


def build_let_metrics_processor(
    job_config: LetJobConfig, parallel_dims: ParallelDims, model_args: Any = None
) -> LetMetricsProcessor:
    """Builds the processor for TrainSpec."""
    return LetMetricsProcessor(job_config, parallel_dims)
