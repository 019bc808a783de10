"""Checkpoints that survive: torchtitan's DCP manager with checksums, and no folder half there."""

from let_titan.checkpoint.manager import LetCheckpointManager

__all__ = ["LetCheckpointManager"]
