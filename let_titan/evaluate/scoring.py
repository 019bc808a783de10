"""NLL per set of documents, and what it says as perplexity."""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from let_titan.evaluate.windows import Window


def measure(
    model: torch.nn.Module, windows: Iterator[Window], batch_size: int, n_bytes: torch.Tensor
) -> dict[int, np.ndarray]:
    """Returns {set: [3] fp64: NLL in nats, tokens, bytes}.

    Args:
        model: a Hugging Face causal LM.
        windows: what it reads.
        batch_size: windows at once.
        n_bytes: [V], the bytes of text of each id.
    """
    sums: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(3))
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) == batch_size or len(window.ids) != len(batch[0].ids)):
            score(model, batch, n_bytes, sums)
            batch = []
        batch.append(window)
    if batch:
        score(model, batch, n_bytes, sums)
    return sums


@torch.inference_mode()
def score(
    model: Any, batch: list[Window], n_bytes: torch.Tensor, sums: dict[int, np.ndarray]
) -> None:
    """Adds what one batch of equally long windows holds to ``sums``."""
    ids = torch.from_numpy(np.stack([window.ids for window in batch]))
    inputs, labels = ids[:, :-1].to(model.device), ids[:, 1:].to(model.device)
    logits = model(inputs, use_cache=False).logits.float()
    nll = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    for row, window in zip(nll.view_as(labels).double().cpu().numpy(), batch, strict=True):
        last = slice(-window.scored, None)
        text = n_bytes[torch.from_numpy(window.ids[last])].numpy()
        for index in np.unique(window.sets[last]):
            mine = window.sets[last] == index
            sums[int(index)] += (row[last][mine].sum(), mine.sum(), text[mine].sum())


def figures(sums: np.ndarray) -> dict[str, float]:
    """Returns what [3] NLL, tokens and bytes say; per_token and per_byte are perplexities."""
    nll, tokens, n_bytes = sums.tolist()
    per_byte = nll / n_bytes if n_bytes else math.nan
    return {
        "nll": nll / tokens,
        "per_token": math.exp(nll / tokens),
        "per_byte": math.exp(per_byte),
        "bits_per_byte": per_byte / math.log(2),
        "tokens": int(tokens),
        "bytes": int(n_bytes),
    }
