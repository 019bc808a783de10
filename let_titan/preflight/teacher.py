"""The teacher's price: from its own configuration where it can be read, else from the facts."""

from typing import Any

from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims
from transformers import PretrainedConfig

from let_titan.alignment import LEARNED, cca_bytes, map_bytes, map_flops
from let_titan.config import LetJobConfig
from let_titan.distill import times_read
from let_titan.errors import NotFoundHere
from let_titan.plan import LetPlan, let_in_use
from let_titan.preflight.gpus import GPUS_PER_NODE
from let_titan.preflight.memory import local_bytes
from let_titan.student.flavors import FLAVORS
from let_titan.teacher import facts_with_head
from let_titan.teacher.facts import facts_of
from let_titan.teacher.load import build_part, describe
from let_titan.teacher.placement import place, shard_mesh
from let_titan.teacher.sources import read_config


def find_teacher(config: LetJobConfig) -> tuple[PretrainedConfig, str]:
    """Returns the teacher's configuration and where it is from.

    Raises:
        ConfigError: it cannot be read and is none of those whose facts are shipped.
    """
    teacher, checkpoint = config.teacher, config.teacher.checkpoint
    try:
        return read_config(*teacher.source), checkpoint
    except NotFoundHere:
        facts = facts_of(checkpoint)
        if facts is None:
            raise
        return facts.config(), facts.source


def price_teacher(
    config: LetJobConfig,
    plan: LetPlan,
    dims: ParallelDims,
    per_node: int = GPUS_PER_NODE,
) -> dict[str, Any]:
    """Builds the part of the teacher that the plan needs, without weights, and places it.

    Args:
        config: as parsed.
        plan: with pairs.
        dims: the run's layout, of which this process is a rank.
        per_node: processes on each node.

    Returns:
        what summary.json will say of it, with "source" and "bytes_per_gpu", in which learned width
        maps and covariances count, too.
    """
    teacher = config.teacher
    found, source = find_teacher(config)
    layers = [pair.layer for pair in plan.pairs]
    dtype = TORCH_DTYPE_MAP[teacher.dtype]
    model, resolved = build_part(found, layers, dtype, teacher.trust_remote_code)
    facts = describe(model, teacher.checkpoint, resolved, dtype, config.training.seq_len)
    mesh = shard_mesh(teacher.placement, dims, per_node)
    placement = place(model, mesh, teacher.placement, facts["bytes"])
    widths, let = (FLAVORS[config.model.flavor].dim, facts["width"]), let_in_use(config)
    beside = len(plan.pairs) * cca_bytes(*widths) if let.loss == "cca" else 0
    if let.width_map in LEARNED:
        beside = len(plan.pairs) * map_bytes(*widths)
        facts["flops_per_token"] += len(plan.pairs) * map_flops(*widths)
    return facts | {
        "placement": placement,
        "source": source,
        "bytes_per_gpu": local_bytes(model.parameters()) + beside,
    }


def with_head(teacher: dict[str, Any], config: LetJobConfig, vocabulary: int) -> dict[str, Any]:
    """Adds to ``price_teacher``'s facts the LM head that [distill] needs, whole on every rank."""
    dtype, reads = TORCH_DTYPE_MAP[config.teacher.dtype], times_read(config.distill.select_of)
    both = teacher | facts_with_head(teacher, vocabulary, dtype, reads)
    both["bytes_per_gpu"] += both["bytes"] - teacher["bytes"]
    return both
