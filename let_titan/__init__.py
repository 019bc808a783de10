"""let_titan: Late-to-Early Training (arXiv 2602.05393) as a torchtitan recipe."""

import os

# Read when huggingface_hub is imported: a hub out of reach is told within ten seconds.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")

# First of all: torchtitan looks for a device while it is imported.
from let_titan import device as device

__version__ = "0.1.0"
