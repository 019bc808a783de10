"""The Pile's line format: one JSON object a line, {"text": ..., "meta": {"pile_set_name": ...}}."""

from let_titan.data.pile import (
    build_dataloader,
    check_dataset,
    data_files,
    data_fingerprint,
    register_pile,
)

__all__ = [
    "build_dataloader",
    "check_dataset",
    "data_files",
    "data_fingerprint",
    "register_pile",
]
