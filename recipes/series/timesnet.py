"""TimesNet for classification, written to the paper's description.

Wu et al., "TimesNet: Temporal 2D-Variation Modeling for General Time Series Analysis", ICLR 2023.
Libraries that have one do not fit beside this trainer: pypots wants transformers below 4.58,
neuralforecast ray and lightning (and forecasts only).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from series.output import Output


class Inception(nn.Module):
    """The mean of square convolutions of sides 1, 3, .., 2 n - 1: [B, d, H, W] -> [B, d_out, H, W].

    A mean of convolutions is the convolution with the mean of their kernels, each padded with zeros
    to the largest: one pass in place of n.
    """

    def __init__(self, d_in: int, d_out: int, n_kernels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(d_in, d_out, 2 * i + 1, padding=i) for i in range(n_kernels)
        )

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        margin = len(self.convolutions) - 1
        weights, biases = zip(*((c.weight, c.bias) for c in self.convolutions), strict=True)
        padded = [F.pad(weight, [margin - i] * 4) for i, weight in enumerate(weights)]
        weight, bias = (torch.stack(list(parts)).mean(0) for parts in (padded, biases))
        return F.conv2d(grid, weight, bias, padding=margin)


def strongest_periods(series: torch.Tensor, top_k: int) -> tuple[list[int], torch.Tensor]:
    """Returns the periods ceil(T / f) of the ``top_k`` strongest frequencies f >= 1 (equation 1).

    A batch has one set of periods, of its mean amplitudes, so that its series share their grids.

    Args:
        series: [B, T, d].

    Returns:
        (periods, each series' amplitude at them, [B, top_k]).
    """
    amplitude = torch.fft.rfft(series, dim=1).abs().mean(-1)  # [B, T // 2 + 1]
    frequencies = amplitude.detach().mean(0)[1:].topk(top_k).indices + 1
    n_steps = series.shape[1]
    return [math.ceil(n_steps / f) for f in frequencies.tolist()], amplitude[:, frequencies]


class TimesBlock(nn.Module):
    """One block, [B, T, d] -> [B, T, d]: each period folds time into a grid to be convolved."""

    def __init__(self, width: int, n_kernels: int, top_k: int, dropout: float) -> None:
        super().__init__()
        self.top_k = top_k
        self.convolutions = nn.Sequential(
            Inception(width, width, n_kernels), nn.GELU(), Inception(width, width, n_kernels)
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        periods, amplitudes = strongest_periods(series, self.top_k)
        seen = torch.stack([self.folded(series, period) for period in periods], -1)
        mixed = (seen * amplitudes.softmax(-1)[:, None, None, :]).sum(-1)
        return self.norm(series + self.dropout(mixed))

    def folded(self, series: torch.Tensor, period: int) -> torch.Tensor:
        """Convolves [B, T, d] as a grid of rows of one ``period``, padded with zeros."""
        n_steps = series.shape[1]
        grid = F.pad(series.transpose(1, 2), (0, -n_steps % period)).unflatten(-1, (-1, period))
        return self.convolutions(grid).flatten(2)[..., :n_steps].transpose(1, 2)


def sinusoids(n_steps: int, width: int) -> torch.Tensor:
    """Returns the positions of "Attention is all you need", [T, d]; d is even."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(n_steps)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


class TimesNet(nn.Module):
    """A classifier whose tokens are time steps.

    Args:
        n_channels, n_steps, n_classes: of the data.
        width: d, even.
        n_blocks, n_kernels, top_k, dropout: of the blocks.
    """

    positions: torch.Tensor

    def __init__(
        self,
        n_channels: int,
        n_steps: int,
        n_classes: int,
        *,
        width: int,
        n_blocks: int,
        n_kernels: int = 3,
        top_k: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(
            n_channels, width, 3, padding=1, padding_mode="circular", bias=False
        )
        self.register_buffer("positions", sinusoids(n_steps, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TimesBlock(width, n_kernels, top_k, dropout) for _ in range(n_blocks)
        )
        self.head = nn.Linear(n_steps * width, n_classes)

    def forward(self, series: torch.Tensor, mask: torch.Tensor) -> Output:
        """Classifies ``series``, [B, T, n_channels], of whose steps ``mask``, [B, T], are real."""
        state = self.embedding(series.transpose(1, 2)).transpose(1, 2)
        state = self.dropout(state + self.positions)
        states = []
        for block in self.blocks:
            state = block(state)
            states.append(state)
        kept = self.dropout(F.gelu(state)) * mask.unsqueeze(-1)
        return Output(self.head(kept.flatten(1)), states)

    def tokens(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns another model's [B, T, d_T] and its mask as they meet this one's states."""
        return states, mask
