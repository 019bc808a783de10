"""The alignment loss: pure torch, no config, no logging."""

from let_titan.alignment.cca import Cca, cca_bytes
from let_titan.alignment.cosine import cosine_alignment
from let_titan.alignment.diagnostics import Diagnostics
from let_titan.alignment.fitted import Fitted
from let_titan.alignment.gradient import AlignmentLoss, gradient_of
from let_titan.alignment.inject import ALIGNMENT_ARGUMENTS, Alignment
from let_titan.alignment.learned import LEARNED, LearnedMap, map_bytes, map_flops
from let_titan.alignment.losses import LOSSES, alignment_loss, of_tokens
from let_titan.alignment.maps import BEFORE_THE_STUDENT, build_width_map
from let_titan.alignment.meter import StepMeter
from let_titan.alignment.moments import RunningMoments
from let_titan.alignment.procrustes import Procrustes
from let_titan.alignment.shard import (
    all_rows,
    dividing_axes,
    rows_of_this_rank,
    share_of_batch,
    sharing_axes,
)
from let_titan.alignment.width import interpolate_width

__all__ = [
    "ALIGNMENT_ARGUMENTS",
    "BEFORE_THE_STUDENT",
    "LEARNED",
    "LOSSES",
    "Alignment",
    "AlignmentLoss",
    "Cca",
    "Diagnostics",
    "Fitted",
    "LearnedMap",
    "Procrustes",
    "RunningMoments",
    "StepMeter",
    "alignment_loss",
    "all_rows",
    "build_width_map",
    "cca_bytes",
    "cosine_alignment",
    "dividing_axes",
    "gradient_of",
    "interpolate_width",
    "map_bytes",
    "map_flops",
    "of_tokens",
    "rows_of_this_rank",
    "share_of_batch",
    "sharing_axes",
]
