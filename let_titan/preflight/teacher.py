"""The teacher's price: from its own configuration where it can be read, else from the facts."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

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
from let_titan.teacher import TeacherDescription
from let_titan.teacher.description import describe
from let_titan.teacher.facts import facts_of
from let_titan.teacher.load import build_part
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


@dataclass(frozen=True)
class PricedTeacher:
    """A teacher in a run's layout.

    Attributes:
        description: what summary.json will say of it, as far as that is known before it is loaded.
        source: where its shape is from.
        bytes_per_gpu: with learned width maps, covariances, and an LM head.
    """

    description: TeacherDescription
    source: str
    bytes_per_gpu: int

    def with_head(self, config: LetJobConfig, vocabulary: int) -> Self:
        """Returns it with the LM head that [distill] needs, whole on every rank."""
        dtype, reads = TORCH_DTYPE_MAP[config.teacher.dtype], times_read(config.distill.select_of)
        description = self.description.with_head(vocabulary, dtype, reads)
        head = description.bytes - self.description.bytes
        return replace(self, description=description, bytes_per_gpu=self.bytes_per_gpu + head)

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON, without what only a teacher that is loaded has."""
        known = {k: value for k, value in asdict(self.description).items() if value is not None}
        return known | {"source": self.source, "bytes_per_gpu": self.bytes_per_gpu}


def price_teacher(
    config: LetJobConfig,
    plan: LetPlan,
    dims: ParallelDims,
    per_node: int = GPUS_PER_NODE,
) -> PricedTeacher:
    """Builds the part of the teacher that the plan needs, without weights, and places it.

    Args:
        config: as parsed.
        plan: with pairs.
        dims: the run's layout, of which this process is a rank.
        per_node: processes on each node.
    """
    teacher = config.teacher
    found, source = find_teacher(config)
    layers = [pair.layer for pair in plan.pairs]
    dtype = TORCH_DTYPE_MAP[teacher.dtype]
    model, resolved = build_part(found, layers, dtype, teacher.trust_remote_code)
    unplaced = describe(model, teacher.checkpoint, resolved, dtype, config.training.seq_len)
    mesh = shard_mesh(teacher.placement, dims, per_node)
    placement = place(model, mesh, teacher.placement, unplaced.bytes)
    description = replace(unplaced, placement=placement)
    widths, let = (FLAVORS[config.model.flavor].dim, description.width), let_in_use(config)
    beside = len(plan.pairs) * cca_bytes(*widths) if let.loss == "cca" else 0
    if let.width_map in LEARNED:
        beside = len(plan.pairs) * map_bytes(*widths)
        description = description.with_maps(len(plan.pairs) * map_flops(*widths))
    return PricedTeacher(description, source, local_bytes(model.parameters()) + beside)
