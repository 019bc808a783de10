"""What is fitted to a pair's states in closed form, step by step, without a gradient."""

from typing import Protocol

import torch


class Fitted(Protocol):
    """Sees each step's tokens and gives what the steps before have taught; equal on all ranks.

    Attributes:
        directions: what the loss takes beside the states and the mask.
    """

    directions: tuple[torch.Tensor, ...]

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the teacher's [B, S, d_T] as the loss takes it."""

    def observe(self, hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts the valid tokens of [B, S, d_M] and [B, S, d_T]; each token comes once a step."""

    def end_step(self) -> None:
        """Takes in the step's tokens of all ranks; every rank calls."""

    def discard_step(self) -> None:
        """Forgets the present step, which was left out of the run; every rank calls."""

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what a resume needs."""

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Takes it back."""
