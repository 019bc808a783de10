"""What stands in summary.json of a run that is built: config, surroundings, sizes, fingerprints."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn
from torchtitan.components.tokenizer import HuggingFaceTokenizer

from let_titan.collectives import gathered
from let_titan.config import LetJobConfig
from let_titan.data.files import data_fingerprint
from let_titan.plan import LetPlan
from let_titan.run.summary import surroundings
from let_titan.student.flavors import FLAVORS
from let_titan.tokenizer.build import fingerprint


def describe_run(
    config: LetJobConfig,
    plan: LetPlan,
    tokenizer: HuggingFaceTokenizer,
    model_parts: Iterable[nn.Module],
) -> dict[str, Any]:
    """Returns what does not change during a run; every rank calls.

    Args:
        config: the run's.
        plan: its own.
        tokenizer: the student's.
        model_parts: the student, or this rank's stages of it.
    """
    validation = config.validation
    return {
        "config": config.to_dict(),
        **surroundings(),
        "architecture": FLAVORS[config.model.flavor].architecture(),
        "parameters": parameter_counts(model_parts),
        "let_plan": dataclasses.asdict(plan) if plan.pairs else None,
        "teacher": None,
        "tokenizer": {"path": config.model.hf_assets_path, "sha256": fingerprint(tokenizer)},
        "special_tokens": {
            "add_bos": config.data.add_bos and tokenizer.bos_id is not None,
            "bos_id": tokenizer.bos_id,
            "add_eos": config.data.add_eos and tokenizer.eos_id is not None,
            "eos_id": tokenizer.eos_id,
        },
        "data": data_fingerprint(config.training.dataset, config.training.dataset_path),
        "validation_data": data_fingerprint(validation.dataset, validation.dataset_path)
        if validation.enable
        else None,
    }


def parameter_counts(model_parts: Iterable[nn.Module]) -> dict[str, int]:
    """Returns the student's parameters, all of them and those in its blocks; every rank calls."""
    sizes = {
        name: parameter.numel()
        for part in model_parts
        for name, parameter in part.named_parameters()
    }
    for stage in gathered(sizes):  # under a pipeline this rank has a part of the names
        sizes |= stage
    return {
        "total": sum(sizes.values()),
        "blocks": sum(size for name, size in sizes.items() if name.startswith("layers.")),
    }
