"""Loads the teacher as a run's config and layout have it."""

from pathlib import Path

import torch
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims

from let_titan.config import LetJobConfig, compiles_teacher
from let_titan.plan import LetPlan
from let_titan.teacher import Teacher, load_teacher, read_head
from let_titan.teacher.float8 import build_float8
from let_titan.tokenizer.build import vocab_size


def load_model(
    job_config: LetJobConfig,
    plan: LetPlan,
    dims: ParallelDims,
    device: torch.device,
    folder: Path,
    mesh: DeviceMesh | None,
) -> Teacher:
    """Loads the part of the teacher in ``folder`` that ``plan`` needs, sharded over ``mesh``."""
    config = job_config.teacher
    compiled = compiles_teacher(job_config)
    return load_teacher(
        folder,
        [pair.layer for pair in plan.pairs],
        dtype=TORCH_DTYPE_MAP[config.dtype],
        device=device,
        seq_len=job_config.training.seq_len,
        mesh=mesh,
        placement=config.placement,
        float8=build_float8(job_config, dims, compiled) if config.float8 else None,
        compile_backend=job_config.compile.backend if compiled else None,
        trust_remote_code=config.trust_remote_code,
    )


def load_head(
    job_config: LetJobConfig, teacher: Teacher, device: torch.device, folder: Path
) -> torch.Tensor:
    """Loads the LM head [V, d_T] that distillation needs, with the student's vocabulary."""
    vocabulary = vocab_size(job_config.model.hf_assets_path)
    dtype = TORCH_DTYPE_MAP[job_config.teacher.dtype]
    return read_head(folder, teacher.model, vocabulary, dtype).to(device)
