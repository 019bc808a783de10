"""A teacher whose linear layers multiply in float8: torchtitan's converter, for a forward alone."""

import copy
from collections.abc import Callable

from torch import nn
from torchtitan.components.quantization.float8 import Float8LinearConverter
from torchtitan.components.quantization.utils import module_filter_fn
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims


def build_float8(config: JobConfig, dims: ParallelDims, compiled: bool) -> Callable[..., None]:
    """Returns what converts a teacher that is not sharded yet, in place.

    Recipe and emulation are those of ``[quantize.linear.float8]``; its other keys are the
    student's: names of its modules, and all-gathers in float8, for which weights are stored
    another way than safetensors are read.

    Args:
        config: the run's.
        dims: its layout.
        compiled: whether the teacher's blocks will be.

    Raises:
        ValueError: neither is there a GPU that has float8, nor is it emulated.
    """
    its = copy.deepcopy(config)
    its.model.converters = []
    its.compile.enable, its.compile.components = compiled, ["model"]
    keys = its.quantize.linear.float8
    keys.enable_fsdp_float8_all_gather, keys.filter_fqns = False, []
    converter = Float8LinearConverter(its, dims)

    def convert(model: nn.Module) -> None:
        converter.convert(model)
        model.eval()  # the new modules, too

    return convert


def float8_linears(model: nn.Module) -> int:
    """Counts the layers that are converted: ``nn.Linear`` whose sides are multiples of 16."""
    return sum(module_filter_fn(module, name, []) for name, module in model.named_modules())
