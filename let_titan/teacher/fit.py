"""Whether a teacher can be built, and from the weights that are there: no tensor is read."""

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from let_titan.errors import ConfigError
from let_titan.quiet import ENUMS, silent
from let_titan.ranges import Layer
from let_titan.teacher.attention import is_eager, mixes_without_attention
from let_titan.teacher.description import describe
from let_titan.teacher.fetch import is_missing
from let_titan.teacher.head import head_key
from let_titan.teacher.keys import stored_keys
from let_titan.teacher.load import build_part
from let_titan.teacher.sources import plan_fetch, read_config


def check_part(
    checkpoint: str,
    layers: Sequence[Layer],
    documents: bool = False,
    head: bool = False,
    trust_remote_code: bool = False,
    revision: str = "",
) -> None:
    """Builds the part of a teacher that ``layers`` need, without weights, and looks for these.

    What has still to be downloaded or converted is looked at when it is there.

    Args:
        checkpoint: hub id, local folder or ``.gguf`` file.
        layers: the hidden states to give.
        documents: whether it shall keep the documents of a sequence apart.
        head: whether its logits are needed.
        trust_remote_code: allow the checkpoint's own code.
        revision: branch, tag or commit of a hub id; "": its main branch.

    Raises:
        ConfigError: it cannot be built, a weight is missing or has another shape, it does not
            keep documents apart, or its logits are not those of a plain LM head.
    """
    config = read_config(checkpoint, trust_remote_code, revision)
    model = build_or_refuse(config, checkpoint, layers, trust_remote_code)
    projected = getattr(config, "word_embed_proj_dim", config.hidden_size)
    if "last" in layers and projected != config.hidden_size:
        raise ConfigError(
            f"teacher.checkpoint = {checkpoint!r} gives last states of width {projected}, "
            f"projected from {config.hidden_size} without a norm, as OPT-350m alone does: align "
            "with one of its blocks, or choose another OPT."
        )
    if documents:
        refuse_if_mixed(model, config.model_type)
    folder, _ = plan_fetch(checkpoint, trust_remote_code, revision)
    if not is_missing(folder):
        stored_keys(model, folder)
        if head:
            head_key(model, folder)


def refuse_if_mixed(model: nn.Module, name: str) -> None:
    """Raises a ConfigError if a teacher would carry one document's tokens into the next."""
    if is_eager(model):
        reason = "for which transformers has no SDPA to keep documents apart"
    elif mixes_without_attention(model):
        reason = "whose recurrent or convolutional blocks carry one document into the next"
    else:
        return
    raise ConfigError(
        f"data.document_attention = true cannot be used with a {name} teacher, {reason}: leave it "
        "out, or choose another teacher."
    )


def build_or_refuse(
    config: Any, checkpoint: str, layers: Sequence[Layer], trust_remote_code: bool
) -> nn.Module:
    """Builds and describes a part, as a run and preflight will.

    Raises:
        ConfigError: neither would be possible.
    """
    import_models_quietly()
    dtype = torch.bfloat16
    try:
        model, resolved = build_part(config, layers, dtype, trust_remote_code)
        describe(model, checkpoint, resolved, dtype, seq_len=1)
    except Exception as error:  # an architecture's own code raises what it will
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"teacher.checkpoint = {checkpoint!r} cannot be a teacher under transformers "
            f"{version('transformers')} ({type(error).__name__}: {reason}): choose another teacher."
        ) from error
    return model


def import_models_quietly() -> None:
    """Imports what models are built of, and torchao with it.

    A run that is refused afterwards says one sentence and nothing else.
    """
    with silent(ENUMS):
        importlib.import_module("transformers.modeling_utils")
