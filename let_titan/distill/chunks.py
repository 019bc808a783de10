"""A loss of a linear layer's outputs, of which a few tokens' exist at a time.

The outputs of all tokens, or their gradient, never exist at once. For each chunk of tokens its
outputs are computed, then the loss and its gradient with respect to them, and from that the chunk's
part of the gradients of the layer's inputs and weight; then the outputs are freed. All of this
happens in forward, since the outputs are there only then; backward only scales. Nothing is computed
twice.
"""

from collections.abc import Callable
from typing import Any

import torch

CHUNK = 1024
"""Tokens whose outputs are held at once, at most."""

PARTS = 8
"""Chunks where there are few tokens. A chunk takes six times the memory of its outputs, which must
stay below what all outputs would take."""

# (outputs [n, V] in fp32, of which inputs) -> (summed loss, its gradient [n, V])
LossOfRows = Callable[[torch.Tensor, slice], tuple[torch.Tensor, torch.Tensor]]


class _LossOfLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        loss: LossOfRows,
        outputs: int,
        chunk: int,
    ) -> torch.Tensor:
        dtype = dtype_of_products(weight)
        matrix = weight[:outputs].to(dtype)
        of_inputs = torch.empty_like(inputs)
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        total = torch.zeros((), device=inputs.device)
        with torch.autocast(inputs.device.type, enabled=False):
            for begin in range(0, len(inputs), chunk):
                rows = slice(begin, begin + chunk)
                states = inputs[rows].to(dtype)
                value, gradient = loss((states @ matrix.T).float(), rows)
                gradient = gradient.to(dtype)
                of_inputs[rows] = gradient @ matrix
                of_weight[:outputs] += gradient.T @ states
                total += value
        ctx.gradients = of_inputs, of_weight, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        of_inputs, of_weight, dtype = ctx.gradients
        del ctx.gradients  # they are scaled in place, once
        return of_inputs.mul_(grad_output), of_weight.mul_(grad_output).to(dtype), *(None,) * 3


def loss_of_linear(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    loss: LossOfRows,
    outputs: int,
    chunk: int | None = None,
) -> torch.Tensor:
    """Returns the sum of ``loss`` over the rows of inputs @ weight[:outputs].T, in fp32.

    Backward can be taken once. The weight's gradient is summed in fp32.

    Args:
        inputs: [N, d].
        weight: [V, d]. Products are in its dtype or autocast's, as in a linear layer.
        loss: gives a chunk's summed loss and the gradient of its outputs.
        outputs: rows of the weight in use; the gradient of the others is zero.
        chunk: rows of inputs at once; None: ``CHUNK``, or all / ``PARTS`` if that is less.
    """
    chunk = chunk or min(CHUNK, -(-len(inputs) // PARTS))
    return _LossOfLinear.apply(inputs, weight, loss, outputs, chunk)  # type: ignore[no-untyped-call]


def dtype_of_products(weight: torch.Tensor) -> torch.dtype:
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
