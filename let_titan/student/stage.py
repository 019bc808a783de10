"""torch's pipeline stage for a model with an alignment, in each torch from 2.11 to 2.13."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage

from let_titan.alignment import ALIGNMENT_ARGUMENTS


class LetStage(PipelineStage):
    """Its shapes are inferred by a plain forward and backward, in torch 2.11 as in 2.13.

    torch 2.13 runs both on a microbatch of noise before the first step and after each validation,
    torch 2.11 the forward on zeros before the first; an alignment at a later stage would count such
    a microbatch.
    """

    def _compute_outputs(self, *args: Any, module: nn.Module, **kwargs: Any) -> Any:
        return super()._compute_outputs(*args, module=module, **without_alignment(kwargs))

    def _shape_inference(self, args: Any, kwargs: dict[str, Any] | None = None) -> Any:
        """torch 2.11's way to infer shapes."""
        plain = without_alignment(kwargs or {})
        return super()._shape_inference(args, plain)  # type: ignore[misc]

    def _get_init_p2p_neighbors_ops(self) -> list[dist.P2POp]:
        """gloo cannot connect a rank with itself, as torch 2.11 would for ZBVZeroBubble."""
        ops = super()._get_init_p2p_neighbors_ops()
        return [op for op in ops if op.peer != dist.get_rank()]

    def _retrieve_recv_activations(self, fwd_chunk_id: int) -> Any:
        """torch 2.11 makes the buffers once; a validation would make them without a gradient."""
        states = super()._retrieve_recv_activations(fwd_chunk_id)
        return tuple(state.requires_grad_(self.has_backward) for state in states)

    def backward_maybe_with_nosync(
        self, backward_type: str, bwd_kwargs: dict[str, Any], last_backward: bool = False
    ) -> Any:
        """torch 2.11's zero-bubble schedules take every input for a tensor, numbers, too."""
        given = bwd_kwargs.get("input_values", ())
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        kwargs = bwd_kwargs | {"input_values": tensors}
        return super().backward_maybe_with_nosync(backward_type, kwargs, last_backward)

    def get_local_bwd_output(self, mb_index: int) -> tuple[torch.Tensor | None, ...]:
        """In validation there is none, which torch 2.13 asks for where a rank has both stages."""
        return super().get_local_bwd_output(mb_index) if self.has_backward else ()

    def set_local_bwd_input(
        self, next_stage_bwd_outputs: tuple[torch.Tensor | None, ...], mb_index: int
    ) -> None:
        if self.has_backward:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)


def without_alignment(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in ALIGNMENT_ARGUMENTS}
