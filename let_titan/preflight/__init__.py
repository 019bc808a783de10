"""Finds what is wrong with a run, and what it will cost, before it starts, on one CPU."""

from let_titan.preflight.examination import Report, examine

__all__ = ["Report", "examine"]
