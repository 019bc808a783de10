"""The private names of torchtitan that let_titan calls, in one place, and the version they are of.

Four more are used where they belong: ``ConfigManager._maybe_load_toml``, ``_validate_config`` and
``_maybe_add_custom_config`` in ``config/manager.py``, and
``CheckpointManager._purge_stale_checkpoints`` in ``checkpoint/manager.py``. Those of torch are
here, in ``device.py`` and in ``student/stage.py``, those of transformers in
``teacher/attention.py`` and ``teacher/tokens.py``.
"""

import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed.checkpoint._async_process_executor as process_executor
import torchtitan.components.metrics as titan_metrics
import torchtitan.distributed.activation_checkpoint as activation_checkpoint
import torchtitan.distributed.pipeline_parallel as pipeline_parallel
import torchtitan.models.llama3.infra.parallelize as llama_parallelize
import torchtitan.protocols.model_converter as model_converter
import torchtitan.protocols.train_spec as train_spec
import torchtitan.train
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.utils._python_dispatch import _disable_current_modes
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.distributed import utils as dist_utils

from let_titan.errors import ConfigError
from let_titan.helpers import serve_rank, signals_blocked

TORCHTITAN = "0.2.2"


def check_version() -> None:
    """Raises unless the tested torchtitan version is installed.

    Raises:
        ConfigError: names the version that is installed, and the tested one.
    """
    found = importlib.metadata.version("torchtitan")
    if found != TORCHTITAN:
        raise ConfigError(
            f"torchtitan {found} is installed, but let_titan is made for {TORCHTITAN}: "
            f"pip install torchtitan=={TORCHTITAN}."
        )


def is_registered(model_name: str) -> bool:
    """Whether a TrainSpec of this name was registered from outside torchtitan."""
    return model_name in train_spec._extra_train_specs


def converter_names() -> list[str]:
    """Returns what model.converters may name."""
    return list(model_converter._registry_model_converter_cls)


@contextmanager
def checkpoint_manager(manager: type[CheckpointManager]) -> Iterator[None]:
    """While active, a new Trainer takes ``manager``, for which a TrainSpec has no field."""
    with mock.patch.object(torchtitan.train, "CheckpointManager", manager):
        yield


TorchSaver = process_executor._AsyncCheckpointProcess


class Saver(TorchSaver):
    """torch's process that writes checkpoints, which a signal to its rank does not end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with signals_blocked():
            super().__init__(*args, **kwargs)

    @staticmethod
    def _checkpointing_subprocess(*args: Any) -> None:
        """What the process runs."""
        serve_rank()
        TorchSaver._checkpointing_subprocess(*args)


def save_in_serving_processes() -> None:
    """Makes torch start a ``Saver``, for good: a thread of torch's own starts it at some time."""
    process_executor._AsyncCheckpointProcess = Saver  # type: ignore[misc]


@contextmanager
def clipping_by(clip: Callable[..., torch.Tensor]) -> Iterator[None]:
    """While active, a train step clips by ``clip``, for parameters that are not the model's.

    Args:
        clip: takes torchtitan's function, then the arguments of its call in ``train_step``.
    """
    ours = partial(clip, dist_utils.clip_grad_norm_)
    with mock.patch.object(dist_utils, "clip_grad_norm_", ours):
        yield


@contextmanager
def pipeline_stage(stage: type[PipelineStage]) -> Iterator[None]:
    """While active, torchtitan makes ``stage`` the class of a pipeline's stages."""
    with mock.patch.object(pipeline_parallel, "PipelineStage", stage):
        yield


class ColwiseParallelOrLoss(ColwiseParallel):
    """As torch's, for a layer that may return a loss, equal on all ranks, instead of columns."""

    @staticmethod
    def _prepare_output_fn(
        output_layouts: Any, use_local_output: Any, mod: Any, outputs: Any, device_mesh: Any
    ) -> torch.Tensor:
        if not isinstance(outputs, DTensor):
            return outputs
        arguments = output_layouts, use_local_output, mod, outputs, device_mesh
        return ColwiseParallel._prepare_output_fn(*arguments)


@contextmanager
def columns_or_loss() -> Iterator[None]:
    """While active, torchtitan shards an LM head by ``ColwiseParallelOrLoss``."""
    with mock.patch.object(llama_parallelize, "ColwiseParallel", ColwiseParallelOrLoss):
        yield


@contextmanager
def blocks_counted_anew() -> Iterator[None]:
    """While active, torchtitan counts the blocks of which it checkpoints every so many from 0.

    Its count is the process's: without this, a model that is built to be tried or measured would
    shift which blocks of the next one are checkpointed.
    """
    with mock.patch.object(activation_checkpoint, "_layer_sac_count", 0):
        yield


class PipelineAction(NamedTuple):
    """What a rank of a pipeline does at a time.

    Attributes:
        stage: its number.
        kind: a forward ("F"), a backward whole ("B") or that of the inputs ("I") and that of the
            weights ("W"), or "REDUCE_GRAD".
        microbatch: its number; None for the last kind.
    """

    stage: int
    kind: str
    microbatch: int | None


def pipeline_stages(schedule: Any) -> list[PipelineStage]:
    """Returns the stages of this rank; torch's schedules of one stage keep it by another name."""
    single = isinstance(schedule, PipelineScheduleSingle)
    found: Any = [schedule._stage] if single else schedule._stages
    return found


def pipeline_actions(schedule: Any, rank: int) -> list[PipelineAction]:
    """Returns what a rank of the pipeline computes in a step, in order."""
    single = isinstance(schedule, PipelineScheduleSingle)
    orders = schedule.pipeline_order if single else schedule.pipeline_order_with_comms
    actions = (
        PipelineAction(a.stage_index, a.computation_type.value, a.microbatch_index)
        for a in orders[rank]
        if a is not None
    )
    return [action for action in actions if action.kind in (*"FBIW", "REDUCE_GRAD")]


@contextmanager
def metrics_from_rank_0() -> Iterator[None]:
    """While active, a Trainer that is built logs on rank 0 under a pipeline, too.

    torchtitan logs where the last stage is, the only one with a loss of its own, and warns if that
    rank is silent; here every rank learns the loss (``LetMetricsProcessor.log``).
    """
    with (
        mock.patch.object(titan_metrics, "_get_metrics_rank", lambda *_: 0),
        mock.patch.object(torchtitan.train, "ensure_pp_loss_visible", lambda *_: None),
    ):
        yield


@contextmanager
def fake_tensors() -> Iterator[None]:
    """While active, tensors have shapes and dtypes but no storage.

    To learn the shape of an op's result, DTensor tries the op on tensors of the global shape. They
    are on no rank, so that who counts a rank's tensors is not shown them.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    tried = ShardingPropagator._propagate_tensor_meta_non_cached

    def unseen(self: ShardingPropagator, op_schema: Any) -> Any:
        with _disable_current_modes():
            return tried(self, op_schema)

    name = "_propagate_tensor_meta_non_cached"
    with (
        mock.patch.object(ShardingPropagator, name, unseen),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def memory_tracker(model: nn.Module, inputs: list[torch.Tensor]) -> Any:
    """Returns torch's tracker of live bytes by kind, of a sharded ``model`` or of a plain one."""
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed._tools.mem_tracker import MemTracker

    if isinstance(model, FSDPModule):
        tracker: Any = FSDPMemTracker(model)
        tracker.track_inputs(tuple(inputs))
    else:
        tracker = MemTracker()
        tracker.track_external(model, *inputs)
    return tracker


def forget_shardings() -> None:
    """Empties DTensor's caches, for the end of a world.

    In torch 2.13 a new mesh, even another rank's, equals one of the same shape from a world that is
    gone, and the cached entries name process groups that no longer exist.
    """
    from torch.distributed.tensor.debug import _clear_sharding_prop_cache

    _clear_sharding_prop_cache()
