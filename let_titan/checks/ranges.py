"""The numbers that each key may take, where torchtitan would fail late or train wrongly.

Keys of parts that are not used here (pipeline stages, experts, fault tolerance) have no entry; for
every other number a test asks for one. [let] and [distill] have checks of their own.
"""

import math
from dataclasses import dataclass
from typing import Any

from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """``low <= value <= high``; with ``above`` or ``below`` the end itself is left out.

    Attributes:
        also: one more number that is right, since it has a meaning of its own.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    also: float | None = None

    def __contains__(self, value: float) -> bool:
        if value == self.also:
            return True
        too_low = value <= self.low if self.above else value < self.low
        too_high = value >= self.high if self.below else value > self.high
        return not (math.isnan(value) or too_low or too_high)

    def __str__(self) -> str:
        words = f"above {self.low}" if self.above else f"at least {self.low}"
        if self.high < math.inf:
            words += f" and {'below' if self.below else 'at most'} {self.high}"
        elif self.below:
            words += " and finite"
        return words if self.also is None else f"{self.also}, or {words}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)
FINITE = Range(0, math.inf, below=True)
POSITIVE = Range(0, math.inf, above=True, below=True)
BELOW_ONE = Range(0, 1, below=True)

RANGES = {
    "model.rope_theta": POSITIVE,
    "model.pad_vocab_to_multiple_of": COUNT,
    "profiling.profile_freq": COUNT,
    "profiling.profiler_active": COUNT,
    "profiling.profiler_warmup": NOT_NEGATIVE,
    "metrics.log_freq": COUNT,
    "optimizer.lr": FINITE,
    "optimizer.beta1": BELOW_ONE,
    "optimizer.beta2": BELOW_ONE,
    # With 0 a token that is not in the first batch makes 0 / 0
    "optimizer.eps": POSITIVE,
    "optimizer.weight_decay": FINITE,
    "lr_scheduler.warmup_steps": NOT_NEGATIVE,
    "lr_scheduler.total_steps": COUNT,
    "lr_scheduler.decay_ratio": FRACTION,
    "lr_scheduler.min_lr_factor": FRACTION,
    "training.local_batch_size": COUNT,
    "training.global_batch_size": Range(1, also=-1),
    "training.seq_len": COUNT,
    "training.max_norm": Range(0, above=True),
    "training.steps": COUNT,
    "training.gc_freq": COUNT,
    "training.max_nonfinite_steps": NOT_NEGATIVE,
    "training.dataloader.num_workers": NOT_NEGATIVE,
    "training.dataloader.prefetch_factor": COUNT,
    "parallelism.data_parallel_replicate_degree": COUNT,
    "parallelism.data_parallel_shard_degree": Range(1, also=-1),
    "parallelism.tensor_parallel_degree": COUNT,
    "parallelism.pipeline_parallel_degree": COUNT,
    "parallelism.context_parallel_degree": COUNT,
    "checkpoint.interval": COUNT,
    "checkpoint.keep_latest_k": NOT_NEGATIVE,
    "checkpoint.load_step": Range(0, also=-1),
    "activation_checkpoint.memory_budget": FRACTION,
    "comm.init_timeout_seconds": COUNT,
    "comm.train_timeout_seconds": COUNT,
    "comm.trace_buf_size": NOT_NEGATIVE,
    "validation.local_batch_size": COUNT,
    "validation.seq_len": COUNT,
    "validation.freq": COUNT,
    "validation.dataloader.num_workers": NOT_NEGATIVE,
    "validation.dataloader.prefetch_factor": COUNT,
    "data.lanes": NOT_NEGATIVE,
    "data.shuffle_buffer": NOT_NEGATIVE,
    "data.shuffle_seed": NOT_NEGATIVE,
    "data.max_document_mib": COUNT,
    "data.validation_fraction": BELOW_ONE,
    # What torch.manual_seed takes
    "debug.seed": Range(-(2**63), 2**64, below=True),
}


def out_of_range(config: LetJobConfig) -> dict[str, ConfigError]:
    """Returns the mistake of each key whose number it may not take."""
    values = {path: value_at(config, path) for path in RANGES}
    return {
        path: ConfigError(f"{path} = {value} is out of range: it must be {RANGES[path]}.")
        for path, value in values.items()
        if value is not None and value not in RANGES[path]
    }


def value_at(config: LetJobConfig, path: str) -> Any:
    """Returns ``config.a.b`` for "a.b"."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
