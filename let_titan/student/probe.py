"""Does compiled tensor parallelism work in this torch, on this device? One tiny step tells."""

import os
from copy import deepcopy

import torch
import torch.distributed as dist
from torchtitan.config.job_config import Parallelism
from torchtitan.tools.utils import device_module, device_type

from let_titan.config import LetJobConfig
from let_titan.device import HAS_ACCELERATOR
from let_titan.fake_ranks import fake_ranks
from let_titan.student.flavors import FLAVORS
from let_titan.student.model import LetTransformer
from let_titan.student.parallelize import parallelize_student

BACKEND = "aot_eager"
"""All of compile but its kernels: what goes wrong does so in tracing."""


def compiled_tensor_parallel_error(config: LetJobConfig) -> str:
    """Runs forward and backward of two small blocks, as one of two fake ranks.

    Precision, activation checkpointing and what is compiled are the run's. It takes seconds and
    leaves the random state and the compiler's as they were.

    Args:
        config: of a run with tensor parallelism and compiled blocks.

    Returns:
        what went wrong, "" if nothing did or if a world is there already and none can be made.
    """
    if dist.is_initialized():
        return ""
    config = deepcopy(config)
    config.compile.backend = BACKEND
    config.parallelism = Parallelism(
        tensor_parallel_degree=2, data_parallel_shard_degree=1, disable_loss_parallel=True
    )
    # On the rank's own GPU: otherwise each rank would leave a CUDA context of some hundred MiB on
    # the node's first one.
    device_module.set_device(torch.device(device_type, int(os.environ.get("LOCAL_RANK", 0))))
    try:
        devices = [device_module.current_device()] if HAS_ACCELERATOR else []
        with torch.random.fork_rng(devices=devices):
            backward(config)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    finally:
        torch.compiler.reset()
    return ""


def backward(config: LetJobConfig) -> None:
    """Takes the step, as one of two fake ranks."""
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len, args.n_layers = 64, 32, 2
    with fake_ranks(tp=2) as dims:
        with torch.device("meta"):
            model = LetTransformer(args)
        parallelize_student(model, dims, config)
        model.to_empty(device=device_type)  # whose numbers nobody looks at
        tokens = torch.zeros(1, args.max_seq_len, dtype=torch.int64, device=device_type)
        model(tokens).sum().backward()
