"""The Pile's line format: one JSON object a line, {"text": ..., "meta": {"pile_set_name": ...}}."""

from let_titan.data.build import (
    build_dataloader,
    build_validation_dataloader,
    check_dataset,
    register_pile,
)
from let_titan.data.files import data_files, data_fingerprint
from let_titan.data.loader import PileLoader
from let_titan.data.validation import share

__all__ = [
    "PileLoader",
    "build_dataloader",
    "build_validation_dataloader",
    "check_dataset",
    "data_files",
    "data_fingerprint",
    "register_pile",
    "share",
]
