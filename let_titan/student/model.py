"""The student: torchtitan's Llama 3 with an alignment at the output of block k, or distilled."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torchtitan.models.llama3 import Transformer

from let_titan.alignment import Alignment
from let_titan.distill import Distillation
from let_titan.document_mask import block_mask
from let_titan.student.args import LetModelArgs
from let_titan.student.head import LossHead
from let_titan.student.init import init_like_one_process, init_llama, is_drawn_whole
from let_titan.student.padding import hide_padding


class LetTransformer(Transformer):
    """torchtitan's Transformer, bit for bit, until it is given teacher states, for an alignment
    or for distillation.

    Block k's output is taken in this module's own loop: hooks do not capture under
    ``fullgraph=True`` and fire again when a checkpointed block is recomputed.
    """

    model_args: LetModelArgs
    alignment: Alignment | None = None
    distillation: Distillation | None = None

    def __init__(self, model_args: LetModelArgs) -> None:
        super().__init__(model_args)
        self.output: LossHead | None = LossHead.of(self.output)  # type: ignore[arg-type]

    def init_weights(self, buffer_device: torch.device | None = None) -> None:
        """Initialises by ``model.init_scheme``; the same weights in every layout on a CPU."""
        if not is_drawn_whole(self):
            self._init_by_scheme(buffer_device)
            return
        with torch.random.fork_rng(devices=[]):
            self._init_by_scheme(buffer_device)  # for its buffers
        with torch.device("meta"):
            twin = LetTransformer(self.model_args)
        init_like_one_process(self, twin.to_empty(device="cpu"))

    def _of_tokenizer(self, output: torch.Tensor) -> torch.Tensor:
        """Returns the forward's result; logits with the vocabulary's padding, if any, hidden."""
        if self.model_args.vocabulary is not None and self.output is not None:
            hide_padding(output, self.model_args.vocabulary)
        return output

    def _init_by_scheme(self, buffer_device: torch.device | None) -> None:
        super().init_weights(buffer_device=buffer_device)
        if self.model_args.init_scheme == "llama":
            init_llama(self)

    def get_attention_masks(
        self,
        input_batch: torch.Tensor,
        tokenizer: Any,
        extra_inputs: dict[str, torch.Tensor] | None = None,
    ) -> Any:
        """Builds torchtitan's mask from where documents begin, not from ids that look like an EOS.

        Args:
            input_batch: [B, S] ids; only its shape matters.
            tokenizer: not asked.
            extra_inputs: with "positions" [B, S], 0 where a document begins.

        Raises:
            TypeError: the model takes no mask (torchtitan's way to say so).
        """
        if self.model_args.attn_type != "flex":
            raise TypeError("Only flex attention takes a mask here.")
        assert extra_inputs is not None
        return block_mask(extra_inputs["positions"])

    def forward(
        self,
        tokens: torch.Tensor,
        attention_masks: Any = None,
        positions: torch.Tensor | None = None,
        teacher_hidden: Sequence[torch.Tensor] | None = None,
        align_mask: torch.Tensor | None = None,
        align_coefficient: float | torch.Tensor = 0.0,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Computes logits; with teacher states, attaches the alignment on the way, or distills.

        Args:
            tokens: [B, S] ids (or [B, S, d_M] from the previous pipeline stage).
            attention_masks: as torchtitan's.
            positions: as torchtitan's.
            teacher_hidden: one [B, S, d_T] per aligned block, for distillation one, or None for a
                plain forward.
            align_mask: [B, S] bool, true where the label is not IGNORE_INDEX.
            align_coefficient: lambda(s) / global number of valid tokens.
            labels: [B, S], for distillation in the place of mask and coefficient.

        Returns:
            Logits [B, S, V] (or [B, S, d_M] before the last pipeline stage); with labels the loss.
        """
        if teacher_hidden is None:
            return self._of_tokenizer(super().forward(tokens, attention_masks, positions))
        hidden = tokens if self.tok_embeddings is None else self.tok_embeddings(tokens)
        for name, block in self.layers.items():
            # Called as torchtitan calls it, or the compiled blocks would compile anew after s_stop.
            hidden = block(
                hidden, self.freqs_cis, attention_masks=attention_masks, positions=positions
            )
            if self.alignment is not None:
                assert align_mask is not None
                hidden = self.alignment.inject(
                    int(name) + 1, hidden, teacher_hidden, align_mask, align_coefficient
                )
        hidden = hidden if self.norm is None else self.norm(hidden)
        if self.output is None:
            return hidden
        if self.distillation is None:
            return self._of_tokenizer(self.output(hidden))
        assert labels is not None
        (teacher,) = teacher_hidden
        loss = partial(self.distillation.loss, teacher=teacher, labels=labels)
        return self.output(hidden, loss=loss)
