"""The alignment loss: pure torch, no config, no logging."""

from let_titan.alignment.cosine import cosine_alignment
from let_titan.alignment.diagnostics import Diagnostics
from let_titan.alignment.gradient import AlignmentLoss, gradient_of
from let_titan.alignment.inject import ALIGNMENT_ARGUMENTS, Alignment, AlignmentMeter
from let_titan.alignment.losses import alignment_loss
from let_titan.alignment.maps import build_width_map
from let_titan.alignment.moments import RunningMoments
from let_titan.alignment.procrustes import Procrustes
from let_titan.alignment.shard import rows_of_this_rank
from let_titan.alignment.width import interpolate_width

__all__ = [
    "ALIGNMENT_ARGUMENTS",
    "Alignment",
    "AlignmentLoss",
    "AlignmentMeter",
    "Diagnostics",
    "Procrustes",
    "RunningMoments",
    "alignment_loss",
    "build_width_map",
    "cosine_alignment",
    "gradient_of",
    "interpolate_width",
    "rows_of_this_rank",
]
