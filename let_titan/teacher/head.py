"""The teacher's LM head, which distillation needs and LET does not."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader

from let_titan.errors import ConfigError

NAMES = ("lm_head.weight", "embed_out.weight")
"""Of Llama, OPT and GPT-2, and of GPT-NeoX; a checkpoint with tied weights has none."""


def read_head(folder: Path, model: nn.Module, vocabulary: int, dtype: torch.dtype) -> torch.Tensor:
    """Reads the first ``vocabulary`` rows of the head, or of the embedding that it is tied to.

    Args:
        folder: of safetensors.
        model: the teacher's base model.
        vocabulary: the student's, at most the teacher's, which may be padded.
        dtype: of the result, [vocabulary, d_T], on the CPU.

    Raises:
        ConfigError: there is no head of the width of the final states.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    name = next((name for name in NAMES if name in stored), None) or embedding_key(model, stored)
    size = getattr(stored.get(name), "size", (0, 0))
    width = model.config.hidden_size  # type: ignore[union-attr]
    if size[0] < vocabulary or size[1] != width:
        raise ConfigError(
            f"The teacher in {str(folder)!r} has no LM head of {vocabulary} x {width}: choose "
            "another teacher.checkpoint, or LET, which needs none."
        )
    wanted = {name: torch.empty(size, dtype=dtype)}
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return wanted[name][:vocabulary].clone()


def facts_with_head(
    facts: dict[str, Any], vocabulary: int, dtype: torch.dtype, reads: int = 1
) -> dict[str, Any]:
    """Returns those facts of a teacher that change with its head: FLOPs a token, and bytes.

    Args:
        facts: of its body.
        vocabulary: rows of the head in use.
        dtype: of the head.
        reads: how often it reads a token that is trained on.
    """
    size = vocabulary * facts["width"]
    return {
        "flops_per_token": reads * (facts["flops_per_token"] + 2 * size),
        "bytes": facts["bytes"] + size * dtype.itemsize,
    }


def embedding_key(model: nn.Module, stored: object) -> str:
    """Returns the stored name of the token embedding's weight."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    name = next(n for n, module in model.named_modules() if module is embedding)
    key = f"{name}.weight"
    prefixed = f"{getattr(model, 'base_model_prefix', '')}.{key}"
    return key if key in stored else prefixed  # type: ignore[operator]
