"""Question 3: is it so in a Transformer? Curvature and gradients' angle along training.

What deep linear networks let expect, for a student with LET beside its twin without, same seed:

1. curvature: the largest eigenvalue of the Hessian in the blocks' weights is lower with LET, while
   the teacher is there and after it left (an aligned early block carries more of the map, so no
   direction is as steep as where all blocks share it);
2. evenness: so is its ratio to the mean eigenvalue, trace / n, the part of a condition number that
   can be had without the small end of the spectrum;
3. bias: at block k the alignment's gradient agrees with the NLL's at first (cosine above 0) and
   less and less, so that the teacher must leave.

Measured at checkpoints, on windows of the validation set that are the same for all.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from let_titan.alignment import Alignment, Diagnostics, cosine_alignment
from let_titan.evaluate.windows import Packed
from let_titan.export.source import Source, find_source
from let_titan.export.weights import on_one_process
from let_titan.student.model import LetTransformer
from let_titan.teacher import Teacher
from let_titan.tokenizer.build import vocab_size
from theory.curvature import Hessian, top_eigenvalues, trace

EIGENVALUES = 3


def load_student(checkpoint: Path) -> LetTransformer:
    """Builds the student of a ``step-N`` folder, its attention such that it has two derivatives."""
    source = find_source(checkpoint)
    model = LetTransformer(source.model_args(vocab_size(source.config["model"]["hf_assets_path"])))
    with torch.no_grad():
        model.init_weights()  # for its buffers
    with on_one_process():
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        dcp.load(weights, checkpoint_id=source.folder, no_dist=True)
    for block in model.layers.values():
        block.attention.inner_attention.sdpa_backends = [SDPBackend.MATH]
    return model


def windows_of(source: Source, count: int, of: str = "validation") -> torch.Tensor:
    """Returns the first ``count`` windows of the run's text, [count, S + 1] ids.

    ``of`` is "validation" or "training".
    """
    config = source.config
    data, tokenizer = config["data"], config["model"]["hf_assets_path"]
    path = config[of]["dataset_path"]
    corpus = Packed(path, tokenizer, data["add_bos"], data["add_eos"])
    found = islice(corpus.windows(config[of]["seq_len"], None), count)
    return torch.stack([torch.from_numpy(window.ids) for window in found])


def nll(model: LetTransformer, ids: torch.Tensor, **teacher: Any) -> torch.Tensor:
    """Returns the mean NLL per token of windows, [B, S + 1]."""
    logits = model(ids[:, :-1], **teacher)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def curvature(model: LetTransformer, ids: torch.Tensor, probes: int, seed: int) -> dict[str, Any]:
    """Returns the top of the spectrum and the trace of the NLL's Hessian in the blocks' weights."""
    hessian = Hessian(nll(model, ids), list(model.layers.parameters()))
    top = top_eigenvalues(hessian, EIGENVALUES, seed)
    mean, error = trace(hessian, probes, seed)
    return {
        "n": hessian.shape[0],
        "eigenvalues": top,
        "trace": mean,
        "trace_error": error,
        "products": hessian.n_products,
    }


def angle(model: LetTransformer, teacher: Teacher, k: int, ids: torch.Tensor) -> dict[str, float]:
    """Returns the cosines at block ``k``: its output to the teacher's, and of the two gradients.

    By the trainer's own diagnostics, which want a process group; lambda counts as 1.
    """
    diagnostics = Diagnostics([k], model.model_args.n_layers, ids.device)
    model.alignment = Alignment([(k, 1.0)], cosine_alignment)
    model.alignment.diagnostics = diagnostics
    mask = torch.ones_like(ids[:, 1:], dtype=torch.bool)
    states = {"teacher_hidden": teacher(ids[:, :-1]), "align_mask": mask}
    loss = nll(model, ids, **states, align_coefficient=1 / mask.sum())
    torch.autograd.grad(loss, list(model.layers.parameters()))
    model.alignment = None
    found = diagnostics.result()
    return {
        "nll": loss.item(),
        "cosine": found["block_cosine"][0][k - 1],
        "gradient_cosine": found["grad_cosine"][0],
        "gradient_ratio": found["grad_ratio"][0],
    }
