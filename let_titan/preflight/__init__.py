"""What a run will cost and what is wrong with it, told before it starts, on one CPU."""

from let_titan.preflight.examination import Report, examine

__all__ = ["Report", "examine"]
