"""PatchTST (Nie et al., ICLR 2023) from transformers, with its tokens: patches of time steps."""

import torch
from torch import nn
from transformers import PatchTSTConfig, PatchTSTForClassification

from series.output import Output


def mean_over_patches(
    states: torch.Tensor, mask: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages [B, T, d] over the real steps of each patch of ``length`` steps, T a multiple of it.

    Returns:
        ([B, T / length, d], mask of the patches that have a real step, [B, T / length]).
    """
    real = mask.unflatten(1, (-1, length)).unsqueeze(-1)  # [B, P, length, 1]
    total = torch.where(real, states.unflatten(1, (-1, length)), 0.0).sum(2)
    counts = real.sum(2)
    return total / counts.clamp_min(1), counts.squeeze(-1) > 0


class PatchTransformer(nn.Module):
    """A classifier whose tokens are patches; channels are read apart and averaged as states.

    Args:
        n_channels, n_steps, n_classes: of the data; ``n_steps`` a multiple of ``patch``.
        width, n_blocks, n_heads, patch: of the Transformer.
    """

    def __init__(
        self,
        n_channels: int,
        n_steps: int,
        n_classes: int,
        *,
        width: int,
        n_blocks: int,
        patch: int,
        n_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patch = patch
        config = PatchTSTConfig(
            num_input_channels=n_channels,
            context_length=n_steps,
            num_targets=n_classes,
            patch_length=patch,
            patch_stride=patch,
            d_model=width,
            ffn_dim=2 * width,
            num_hidden_layers=n_blocks,
            num_attention_heads=n_heads,
            ff_dropout=dropout,
            head_dropout=dropout,
            scaling=None,  # data is standardised already, and a series' level may tell its class
            do_mask_input=False,
        )
        self.model = PatchTSTForClassification(config)

    def forward(self, series: torch.Tensor, mask: torch.Tensor) -> Output:
        """Classifies ``series``, [B, T, n_channels], of whose steps ``mask``, [B, T], are real."""
        observed = mask.unsqueeze(-1).expand_as(series)
        found = self.model(series, past_observed_mask=observed, output_hidden_states=True)
        # The first are the embeddings; the last block's own output is not among them
        states = [state.mean(1) for state in found.hidden_states[1:]]
        return Output(found.prediction_logits, states)

    def tokens(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns another model's [B, T, d_T] and its mask as they meet this one's states."""
        return mean_over_patches(states, mask, self.patch)
