"""The teacher's LM head, which distillation needs and LET does not."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader

from let_titan.errors import ConfigError
from let_titan.teacher.keys import key_of

NAMES = ("lm_head.weight", "embed_out.weight")
"""Of Llama, OPT and GPT-2, and of GPT-NeoX; a checkpoint with tied weights has none."""

OF_OTHERS = ("attn_", "router", "auxiliary", "to_keep")
"""Parts of settings' names: these are about other logits than the head's, or about how many."""


def read_head(folder: Path, model: nn.Module, vocabulary: int, dtype: torch.dtype) -> torch.Tensor:
    """Reads the first ``vocabulary`` rows of the head, or of the embedding that it is tied to.

    Args:
        folder: of safetensors.
        model: the teacher's base model.
        vocabulary: the student's, at most the teacher's, which may be padded.
        dtype: of the result, [vocabulary, d_T], on the CPU.

    Raises:
        ConfigError: from ``head_key``.
    """
    reader = HuggingFaceStorageReader(str(folder))
    name = head_key(model, folder, vocabulary)
    size = reader.read_metadata().state_dict_metadata[name].size  # type: ignore[union-attr]
    wanted = {name: torch.empty(size, dtype=dtype)}
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return wanted[name][:vocabulary].clone()


def head_key(model: nn.Module, folder: Path, vocabulary: int = 1) -> str:
    """Returns the stored name of the head's weight; no tensor is read.

    Raises:
        ConfigError: the logits are not the product of a stored weight with the final states, or
            there is none of their width with as many rows as ``vocabulary``.
    """
    config: Any = model.config
    cure = "choose another teacher.checkpoint, or LET, which needs no LM head."
    if found := other_logits(config):
        name, value = found
        raise ConfigError(
            f"The teacher in {str(folder)!r} does more for its logits than its LM head ({name} = "
            f"{value}), which [distill] would leave out: {cure}"
        )
    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    name = next((name for name in NAMES if name in stored), "")
    if not name and getattr(config, "tie_word_embeddings", True):
        name = embedding_key(model, stored)
    for bias in (each.replace("weight", "bias") for each in NAMES):
        if bias in stored:
            raise ConfigError(
                f"The teacher in {str(folder)!r} has {bias!r}, which [distill] would leave out: "
                f"{cure}"
            )
    size = getattr(stored.get(name), "size", (0, 0))
    if size[0] < vocabulary or size[1] != config.hidden_size:
        raise ConfigError(
            f"The teacher in {str(folder)!r} has no LM head of {vocabulary} x "
            f"{config.hidden_size}: {cure}"
        )
    return name


def other_logits(config: Any) -> tuple[str, Any] | None:
    """Returns the setting, and its value, by which logits are scaled or capped; None without one.

    Such are logit_scale (Cohere), logits_scaling (Granite), final_logit_softcapping (Gemma 2).
    """
    scaled = getattr(config, "logits_scaling", None)  # computed by MiniCPM3's, so in no dict
    for name, value in {**config.to_dict(), "logits_scaling": scaled}.items():
        of_logits = "logit" in name and not any(word in name for word in OF_OTHERS)
        if (of_logits or name == "lm_head_multiplier") and value not in (None, False, 1):
            return name, value
    return None


def embedding_key(model: nn.Module, stored: Collection[str]) -> str:
    """Returns the stored name of the token embedding's weight."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    name = next(n for n, module in model.named_modules() if module is embedding)
    return key_of(f"{name}.weight", model, stored)
