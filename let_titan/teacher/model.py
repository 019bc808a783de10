"""The frozen teacher at work: tokens in, hidden states out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from let_titan.document_mask import dense_mask
from let_titan.teacher.attention import Pieces, has_windows
from let_titan.teacher.blocks import ResolvedLayer, block_list
from let_titan.teacher.description import TeacherDescription


class Teacher:
    """A Hugging Face base model without LM head that gives the hidden states asked for.

    Not an ``nn.Module``, so that no walk over the student's modules, optimizer or checkpoint can
    meet it.

    Args:
        model: the base model, frozen, possibly sharded, truncated to the blocks in use.
        layers: one entry per state to give: "last" (after the final norm) or a block's number.
        description: its shape and cost.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[ResolvedLayer],
        description: TeacherDescription,
    ) -> None:
        self.model = model
        self.description = description
        self.layers = tuple(layers)
        self._captured: dict[int, torch.Tensor] = {}
        self._has_windows = has_windows(model.config)
        blocks = block_list(model)
        for number in {layer for layer in layers if layer != "last"}:
            blocks[number - 1].register_forward_hook(self._capture(number))

    def _capture(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # transformers 4 gives a tuple, 5 the tensor itself, and the first GPT's blocks a list
            several = isinstance(output, tuple | list)
            self._captured[number] = output[0] if several else output

        return hook

    @torch.no_grad()
    def __call__(
        self,
        input: torch.Tensor,
        positions: torch.Tensor | None = None,
        pieces: Pieces | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Reads a batch as the loader gives it.

        Args:
            input: [B, S] ids.
            positions: [B, S], of each id in its document, to which it then attends alone; None:
                every sequence is one document.
            pieces: of a single row [1, S], in each of which positions begin at 0; then no mask is
                made. Only where ``takes_pieces``.

        Returns:
            One [B, S, d_T] per entry of ``layers``, in the teacher's dtype.
        """
        # What is not needed is not named: some architectures know neither masks nor positions.
        own: dict[str, Any] = {} if positions is None else {"position_ids": positions}
        if pieces is not None:
            own["pieces"] = pieces
        elif positions is not None and not self._has_windows:
            own["attention_mask"] = dense_mask(positions)
        # The student may run under autocast; the teacher has a dtype of its own.
        with torch.autocast(input.device.type, enabled=False):
            output = self.model(input_ids=input, use_cache=False, **own)
        last = output.last_hidden_state
        captured, self._captured = self._captured, {}
        found = [last if layer == "last" else captured[layer] for layer in self.layers]
        dtype = next(self.model.parameters()).dtype
        return tuple(states.to(dtype) for states in found)  # Mamba's residuals are fp32 always
