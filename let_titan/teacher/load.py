"""Loads a teacher: built without weights, placed, then filled with each rank's part only."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.device_mesh import DeviceMesh
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel, PretrainedConfig

from let_titan.ranges import Layer
from let_titan.teacher.attention import attention_of
from let_titan.teacher.blocks import ResolvedLayer, block_list, resolve_layer
from let_titan.teacher.description import describe
from let_titan.teacher.float8 import float8_linears
from let_titan.teacher.hub import commit_of
from let_titan.teacher.keys import stored_keys
from let_titan.teacher.model import Teacher
from let_titan.teacher.placement import place

logger = logging.getLogger(__name__)


def load_teacher(
    folder: Path,
    layers: Sequence[Layer],
    *,
    dtype: torch.dtype,
    device: torch.device,
    seq_len: int,
    mesh: DeviceMesh | None = None,
    placement: str = "auto",
    float8: Callable[[nn.Module], None] | None = None,
    compile_backend: str | None = None,
    trust_remote_code: bool = False,
) -> Teacher:
    """Loads the part of a causal LM that the chosen layers need.

    Nothing is drawn from the random state, and no rank ever holds more than its part (plus one
    tensor on its way).

    Args:
        folder: config.json and safetensors, from ``prepare_teacher``.
        layers: the hidden states to give: "last", "middle" or a block's number from 1.
        dtype: of weights and states.
        device: where the teacher lives.
        seq_len: tokens per sequence, for its cost.
        mesh: the ranks to shard over; None: nothing to shard over.
        placement: "shard", "node", "replicate" or "auto".
        float8: from ``build_float8``; None: matrices are multiplied in ``dtype``.
        compile_backend: torch.compile's, for the blocks; None leaves them eager.
        trust_remote_code: allow the checkpoint's own code.

    Raises:
        ConfigError: a weight is missing in the folder, or has another shape.
    """
    begin = time.monotonic()
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    model, resolved = build_part(config, layers, dtype, trust_remote_code)
    unplaced = describe(model, folder.name, resolved, dtype, seq_len)
    in_float8 = float8_linears(model) if float8 is not None else 0
    if float8 is not None:
        float8(model)
    description = replace(
        unplaced,
        placement=place(model, mesh, placement, unplaced.bytes),
        commit=commit_of(folder),
        float8_linears=in_float8,
        compiled=compile_backend is not None,
    )
    materialise(model, device)
    read_weights(model, folder)
    if compile_backend is not None:
        compile_blocks(model, compile_backend)
    logger.info(
        f"Teacher {folder.name}: {config.num_hidden_layers} blocks of width {config.hidden_size}, "
        f"{description.bytes / 2**30:.2f} GiB in {dtype}, placement {description.placement}, "
        f"loaded in {time.monotonic() - begin:.1f} s"
    )
    return Teacher(model, resolved, description)


def build_part(
    config: PretrainedConfig,
    layers: Sequence[Layer],
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> tuple[nn.Module, list[ResolvedLayer]]:
    """Builds the blocks that ``layers`` need, without weights; resolves the layers, too."""
    resolved = [resolve_layer(layer, config.num_hidden_layers) for layer in layers]
    if "last" not in resolved:
        config.num_hidden_layers = max(int(layer) for layer in resolved)
    return build_without_weights(config, dtype, trust_remote_code), resolved


def compile_blocks(model: nn.Module, backend: str) -> None:
    """Compiles each block's forward, one graph for all of them.

    The forward alone: FSDP2's hooks, and those that take a block's output, stay outside.
    """
    for block in block_list(model):
        block.forward = torch.compile(block.forward, backend=backend)


class _EmptyOnMeta(TorchFunctionMode):
    """Sends ``torch.empty`` to the meta device: parameters get no storage, buffers their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_without_weights(
    config: PretrainedConfig, dtype: torch.dtype, trust_remote_code: bool
) -> nn.Module:
    """Builds the base model (no LM head), frozen, in eval mode, its large parameters on meta.

    Buffers such as rotary frequencies are computed as usual: most are not in the checkpoint, and
    after a plain build on meta they would be garbage.
    """
    with torch.random.fork_rng(devices=[]), _EmptyOnMeta():
        model = AutoModel.from_config(
            config,
            dtype=dtype,
            attn_implementation=attention_of(config),
            trust_remote_code=trust_remote_code,
        )
    return model.eval().requires_grad_(False)


def materialise(model: nn.Module, device: torch.device) -> None:
    """Gives every parameter storage on ``device`` and takes the buffers' values there."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])


def read_weights(model: nn.Module, folder: Path) -> None:
    """Reads the model's weights from safetensors, each rank its slices, cast on the way.

    The ranks do not confer: under a pipeline only some have a teacher.
    """
    keys = stored_keys(model, folder)
    tensors = dict([*model.named_parameters(), *model.named_buffers(remove_duplicate=False)])
    wanted = {key: tensors[name].data for name, key in keys.items()}
    dcp.load(wanted, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
