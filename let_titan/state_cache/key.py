"""What a cache of states belongs to: the teacher, its tokens, and their order."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from let_titan.checkpoint.checksums import checksum
from let_titan.config import LetJobConfig
from let_titan.plan import LetPlan, aligns
from let_titan.teacher.blocks import resolve_layer
from let_titan.teacher.sources import read_config

BYTES = 2
"""Of a number: states are kept in bfloat16, whatever teacher.dtype is."""


def uses_cache(config: LetJobConfig) -> bool:
    """Whether the run reads or writes a cache: it has one and aligns."""
    return bool(config.teacher.cache) and aligns(config)


def key_of(
    config: LetJobConfig, plan: LetPlan, teacher: Path, data: Mapping[str, Any], lanes: int
) -> dict[str, Any]:
    """Returns all that decides which states stand at which sequence's number.

    Args:
        config: the run's.
        plan: with pairs.
        teacher: its folder, from ``prepare_teacher``.
        data: the loader's identity: corpus, tokenizer, keys of [data], length of a sequence.
        lanes: of the loader.
    """
    float8 = config.quantize.linear.float8
    return {
        "teacher": teacher_digest(teacher),
        "layers": layers_of(plan, teacher, config.teacher.trust_remote_code),
        "teacher.dtype": config.teacher.dtype,
        "teacher.float8": (float8.recipe_name or "tensorwise") if config.teacher.float8 else "",
        "data.document_attention": config.data.document_attention,
        "lanes": lanes,
        **data,
    }


def layers_of(plan: LetPlan, teacher: Path, trust_remote_code: bool) -> list[str]:
    """Returns the teacher's layers in use, each once, as a cache names them."""
    blocks = read_config(str(teacher), trust_remote_code).num_hidden_layers
    return sorted({str(resolve_layer(pair.layer, blocks)) for pair in plan.pairs})


def bytes_per_token(layers: int, width: int) -> int:
    """Returns what a token takes: ``width`` numbers of each layer."""
    return layers * width * BYTES


@functools.cache
def teacher_digest(folder: Path) -> str:
    """Returns a sum over a teacher's configuration and weights, which are read through once."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    sums = [(file.name, checksum(file)) for file in files]
    return hashlib.sha256(repr(sums).encode()).hexdigest()
