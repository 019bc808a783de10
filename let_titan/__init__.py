"""let_titan: Late-to-Early Training (arXiv 2602.05393) as a torchtitan recipe."""

# First of all: torchtitan looks for a device while it is imported.
from let_titan import device as device

__version__ = "0.1.0"
