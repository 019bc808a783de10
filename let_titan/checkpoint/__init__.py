"""Checkpoints that survive: torchtitan's DCP manager with checksums, and no folder half there."""
