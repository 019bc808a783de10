"""Once a step, over all ranks: is every loss and gradient finite, and was the run asked to stop?

One all-gather of three numbers a rank, before the optimizer applies anything: what is not finite
never reaches the weights, and all ranks stop at the same step. Gradients are judged by the norm
that clips them, without another pass over them. The price is that the CPU waits for the backward
pass; torchtitan waits once a step, too, to count valid tokens.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer
from torchtitan.tools.logging import logger

from let_titan.columns import local
from let_titan.errors import RunError
from let_titan.upstream import clipping_by


class StepGuard:
    """A pre-hook of the optimizers' step.

    Args:
        parameters: of the student, whose gradients are about to be applied.
        device: where the ranks' collectives run.
        max_skips: how many steps that are not finite may be left out before the run stops.
        asked_to_stop: whether this rank was asked to; read once a step.
        last_checkpoint: gives what a new start would load.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        device: torch.device,
        max_skips: int,
        asked_to_stop: Callable[[], bool],
        last_checkpoint: Callable[[], Path | None],
    ) -> None:
        self.parameters = list(parameters)
        self.device = device
        self.max_skips = max_skips
        self.asked_to_stop = asked_to_stop
        self.last_checkpoint = last_checkpoint
        self.stop = False  # the same on all ranks, from the step on in which one was asked
        self.skipped: dict[str, list[int]] | None = None  # what was not finite in this step
        self._n_skipped = 0

    def begin(self, step: int) -> None:
        """Starts step number ``step``."""
        self.step = step
        self.skipped = None
        self._losses: list[torch.Tensor] = []

    def clipping(self) -> AbstractContextManager[None]:
        """While active, keeps the norm by which a train step clips."""
        return clipping_by(self._clip)

    def _clip(self, clip: Callable[..., torch.Tensor], *args: Any, **options: Any) -> torch.Tensor:
        self._norm = clip(*args, **options)
        return self._norm

    def note_loss(self, loss: torch.Tensor) -> None:
        """Takes a microbatch's loss on this rank, before any reduction over ranks."""
        self._losses.append(local(loss.detach()))

    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        """Gathers all ranks' flags; leaves the step out, or stops the run, if it is not finite.

        Raises:
            RunError: on all ranks, when a step is not finite and none more may be left out.
        """
        bad_loss, bad_norm, stops = ranks_where(self._gathered(self._flags()))
        self.stop = bool(stops)
        if not bad_loss and not bad_norm:
            return
        bad_gradient = self._ranks_of_bad_gradients()
        self._n_skipped += 1
        found = f"Step {self.step}: {describe(bad_loss, bad_gradient)}"
        if self._n_skipped > self.max_skips:
            raise RunError(f"{found}; nothing of it was applied. {self._cure()}")
        logger.warning(f"{found}; step left out ({self._n_skipped} of {self.max_skips}).")
        self.skipped = {"loss_ranks": bad_loss, "gradient_ranks": bad_gradient}
        optimizer.zero_grad()

    def _flags(self) -> torch.Tensor:
        """Returns [3]: loss not finite, norm not finite, asked to stop."""
        loss = torch.stack(self._losses).sum().to(self.device)
        norm = self._norm.to(self.device)
        # Filled on the device: the copy of a host's tensor would block the host until backward has
        # ended, and delay every launch after it.
        asked = torch.full((), self.asked_to_stop(), device=self.device)
        return torch.stack((~loss.isfinite(), ~norm.isfinite(), asked))

    def _ranks_of_bad_gradients(self) -> list[int]:
        """Returns the ranks with a gradient that is not finite, which clipping does not change.

        Empty where all are finite and only the sum of their squares is not.
        """
        bad = torch.tensor(False, device=self.device)
        for gradient in (local(p.grad) for p in self.parameters if p.grad is not None):
            bad |= ~gradient.isfinite().all().to(self.device)
        (ranks,) = ranks_where(self._gathered(bad.unsqueeze(0)))
        return ranks

    def _gathered(self, flags: torch.Tensor) -> torch.Tensor:
        """Returns every rank's ``flags``, bool [n], as int [ranks, n]."""
        mine = flags.int()
        gathered = mine.new_empty(dist.get_world_size() * len(mine))
        dist.all_gather_into_tensor(gathered, mine)
        return gathered.view(-1, len(mine))

    def _cure(self) -> str:
        last = self.last_checkpoint()
        start = f"The last checkpoint is {last}" if last else "There is no checkpoint yet"
        again = "start again with a lower optimizer.lr or let.lambda_0, or look at the data"
        skips = f"--training.max_nonfinite_steps {self.max_skips + 1} leaves such steps out"
        return f"{start}: {again}; {skips}."


def ranks_where(flags: torch.Tensor) -> list[list[int]]:
    """Returns the ranks on which each of n flags, [ranks, n], is set; the host waits for them."""
    return [[rank for rank, here in enumerate(flag) if here] for flag in flags.T.tolist()]


def describe(bad_loss: list[int], bad_gradient: list[int]) -> str:
    """Says which ranks' losses or gradients are not finite."""
    if bad_loss:
        return f"the loss is not finite on rank {ranges(bad_loss)}"
    if not bad_gradient:
        return "the norm of all gradients is not finite, though each of them is"
    return f"the gradient is not finite on rank {ranges(bad_gradient)}"


def ranges(numbers: list[int]) -> str:
    """Abbreviates sorted numbers: [0, 1, 2, 5] is "0-2, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else f"{p[0]}" for p in parts)
