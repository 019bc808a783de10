"""The student, built on meta in the run's layout."""

import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims
from torchtitan.tools import utils as titan_utils

from let_titan.config import LetJobConfig
from let_titan.student import FLAVORS, LetTransformer, parallelize_student
from let_titan.student.pipeline import pipeline_student


@dataclass(frozen=True)
class Student:
    """A student without storage.

    Attributes:
        model: whole, or in its layout.
        parameters: in all, over all ranks.
        block_parameters: those in the decoder blocks.
        flops_per_token: forward and backward, as torchtitan counts them for its MFU.
    """

    model: LetTransformer
    parameters: int
    block_parameters: int
    flops_per_token: int


def whole_student(config: LetJobConfig, vocabulary: int) -> Student:
    """Builds ``model.flavor`` for a tokenizer of ``vocabulary`` ids.

    float8 is left out: it changes no weight's size, and what it saves for backward is bf16.
    """
    args = FLAVORS[config.model.flavor]
    args.update_for_vocabulary(config, vocabulary)
    args.attn_type = "sdpa"  # flex attention, too, keeps its output and one number a head and token
    dtype = TORCH_DTYPE_MAP[config.training.dtype]
    with torch.device("meta"), titan_utils.set_default_dtype(dtype):
        model = LetTransformer(args)
    parameters, flops = args.get_nparams_and_flops(model, config.training.seq_len)
    in_blocks = sum(p.numel() for p in model.layers.parameters())
    return Student(model, parameters, in_blocks, flops)


def build_student(config: LetJobConfig, vocabulary: int, dims: ParallelDims) -> Student:
    """Builds the student as the trainer does: sharded, checkpointed, but never compiled."""
    student = whole_student(config, vocabulary)
    parallelize_student(student.model, dims, eager(config))
    return student


def build_pipeline(student: Student, config: LetJobConfig, dims: ParallelDims) -> Any:
    """Splits copies of a whole student as the trainer does.

    Returns:
        torch's schedule with this rank's stages.
    """
    config = eager(config)
    # After a pipeline's first backward all weights stay gathered, whatever was asked for.
    config.parallelism.fsdp_reshard_after_forward = "never"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A stage lacks what others have: told for each with the whole model's text.
        warnings.filterwarnings("ignore", message="Parallelize plan key")
        schedule, *_ = pipeline_student(
            student.model,
            dims,
            config,
            torch.device(titan_utils.device_type),
            student.model.model_args,
            parallelize_student,
            cross_entropy_loss,
        )
    return schedule


def eager(config: LetJobConfig) -> LetJobConfig:
    """Returns a copy that neither compiles nor offloads: neither can be done without storage.

    ``memory_budget`` is the compiler's way of checkpointing; without it nothing is checkpointed.
    """
    config = deepcopy(config)
    config.compile.enable = False
    config.parallelism.enable_async_tensor_parallel = False  # the compiler's
    config.training.enable_cpu_offload = False
    if config.activation_checkpoint.mode == "memory_budget":
        config.activation_checkpoint.mode = "none"
    return config
