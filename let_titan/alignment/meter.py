"""What is summed over a step's tokens while their gradients are computed."""

import torch


class StepMeter:
    """A loss and an agreement, summed over a step in backward, where each token passes once.

    (Forward may run more often: recomputation, shape inference.) Sums stay on the device; nothing
    is synchronised until ``sums`` is read.
    """

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, loss: torch.Tensor, agreement: torch.Tensor) -> None:
        sums = torch.stack((loss, agreement)).detach()
        self._sums = sums if self._sums is None else self._sums + sums

    def sums(self, device: torch.device) -> torch.Tensor:
        """Returns [2]: over tokens and pairs the weighted loss, and the cosine; over tokens the KL,
        and how many have the same first choice."""
        return torch.zeros(2, device=device) if self._sums is None else self._sums

    def reset(self) -> None:
        self._sums = None
