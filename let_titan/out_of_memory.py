"""What a run says whose GPU's memory runs out, and what takes less of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchtitan.tools.logging import logger

from let_titan.config import LetJobConfig
from let_titan.errors import RunError, one_line, printing_errors

LOCAL_BATCH = "training.local_batch_size"
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@contextmanager
def memory_errors(config: LetJobConfig) -> Iterator[None]:
    """Says what to change where the GPU's memory runs out; the traceback goes to the log.

    Raises:
        RunError: it has. The rank that raises it prints it, since the others may have enough, and
            would wait for this one.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        logger.exception("The GPU's memory ran out:")
        told = ". ".join(one_line(error).split(". ")[:3])  # then come the allocator's own figures
        unset = not any(name in os.environ for name in ALLOCATOR)
        fragments = f"set {ALLOCATOR[0]}=expandable_segments:True, or " if unset else ""
        with printing_errors():
            raise RunError(
                f"A GPU's memory ran out ({told}): {fragments}{memory_cures(config)}. "
                "python -m let_titan.preflight says what takes how much."
            ) from error


def memory_cures(config: LetJobConfig) -> str:
    """Says what would lower the memory of the activations."""
    found, (key, size) = [], batch_size(config)
    if size > 1:
        # Microbatches of a pipeline are parts of the local batch, whose number sets the global one.
        stays = key != LOCAL_BATCH or config.training.global_batch_size > 0
        found.append(f"lower {key} = {size}" + (" (the global batch stays)" if stays else ""))
    if config.activation_checkpoint.mode != "full":
        found.append('set activation_checkpoint.mode = "full"')
    return ", or ".join(found or ["shard over more GPUs"])


def batch_size(config: LetJobConfig) -> tuple[str, int]:
    """Returns key and value of what activations grow with: in a pipeline it is the microbatch."""
    parallelism = config.parallelism
    if parallelism.pipeline_parallel_degree > 1:
        key = "parallelism.pipeline_parallel_microbatch_size"
        return key, parallelism.pipeline_parallel_microbatch_size
    return LOCAL_BATCH, config.training.local_batch_size
