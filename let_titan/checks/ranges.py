"""The numbers that each key may take, where torchtitan would fail late or train wrongly.

Keys of parts that are not used here (pipeline stages, experts, fault tolerance) have no entry; for
every other number a test asks for one. The bounds of steps and blocks are the run's own: they are
checked beside [let] and [distill].
"""

import math
from typing import Any

from let_titan.config import LetJobConfig
from let_titan.data.settings import RANGES as DATA
from let_titan.errors import ConfigError
from let_titan.ranges import (
    BELOW_ONE,
    COUNT,
    FINITE,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    Range,
    out_of_range,
)

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
    **{f"data.{key}": allowed for key, allowed in DATA.items()},
    "let.lambda_0": FINITE,
    "let.s_stop_fraction": FRACTION,
    "let.alpha": Range(1, math.inf, below=True),
    "let.procrustes_every": COUNT,
    "let.cca_ridge": POSITIVE,
    "let.cca_decay": FRACTION,
    "let.cca_tokens": FINITE,
    "let.cca_every": COUNT,
    "let.diagnostics_freq": NOT_NEGATIVE,
    "let.auto_stop_cosine": Range(-1, 1),
    "let.auto_stop_gain": FINITE,
    "distill.weight": Range(0, 1, above=True),
    "distill.temperature": POSITIVE,
    "distill.select_of": COUNT,
    "distill.select_top_k": COUNT,
    # What torch.manual_seed takes
    "debug.seed": Range(-(2**63), 2**64, below=True),
}


def range_mistakes(config: LetJobConfig) -> dict[str, ConfigError]:
    """Returns the mistake of each key whose number it may not take."""
    values = {path: value_at(config, path) for path in RANGES}
    return {
        path: out_of_range(path, value, RANGES[path])
        for path, value in values.items()
        if value is not None and value not in RANGES[path]
    }


def value_at(config: LetJobConfig, path: str) -> Any:
    """Returns ``config.a.b`` for "a.b"."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
