"""let_titan: Late-to-Early Training (arXiv 2602.05393) as a torchtitan recipe."""

from let_titan.before_torchtitan import stand_ready

__version__ = "0.1.0"

stand_ready()
