"""How much of the next token can be read off states by a linear map."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 2048
RATE = 1e-2
"""Of Adam, falling to zero; on features of mean zero and deviation one."""
SEED = 0


def readout_nll(
    states: torch.Tensor,
    labels: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor],
    vocabulary: int,
    epochs: int,
) -> float:
    """Fits a softmax regression and returns its NLL on held-out tokens, in nats per token.

    Args:
        states: [N, d].
        labels: [N] ids of the next tokens.
        held_out: states and labels of others.
        vocabulary: number of ids.
        epochs: how often the regression reads each token.
    """
    mean, deviation = states.mean(0), states.std(0).clamp_min(1e-6)
    states = (states - mean) / deviation
    readout = nn.Linear(states.shape[-1], vocabulary)
    with torch.no_grad():
        readout.weight.zero_()
        counts = torch.bincount(labels, minlength=vocabulary) + 1.0
        readout.bias.copy_((counts / counts.sum()).log())
    optimizer = torch.optim.Adam(readout.parameters(), lr=RATE)
    steps = epochs * -(-len(states) // BATCH)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(epochs):
        for rows in torch.randperm(len(states), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(readout(states[rows]), labels[rows]).backward()
            optimizer.step()
            falling.step()
    with torch.no_grad():
        others = ((held_out[0] - mean) / deviation).split(BATCH)
        losses = [
            F.cross_entropy(readout(part), wanted, reduction="sum")
            for part, wanted in zip(others, held_out[1].split(BATCH), strict=True)
        ]
    return float(sum(losses)) / len(held_out[1])
