"""How much memory does the logit loss take beyond what it is computed from?

    python recipes/distill_memory.py [--tokens 2048 4096] [--vocabulary 32000]

Takes an LM head's loss forward and backward in fp32, each arm in a process of its own, and measures
its largest memory since before (on a GPU torch's count, on a CPU the kernel's of the process), in
units of one tensor [B, S, V]: "NLL" is plain training's, by torchtitan's cross entropy; "naive" the
mixture of NLL and KL as it is written, on whole tensors by autograd; "chunked" the same mixture as
[distill] computes it. The gradients of the last two are compared. Writes
recipes/results/distill_memory/ (results.json, report.md).
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from overhead.peak import peak_bytes, reset_peak
from torchtitan.components.loss import cross_entropy_loss

from let_titan.distill import Distillation
from let_titan.run.summary import surroundings

RESULTS = Path(__file__).parent / "results" / "distill_memory"
WEIGHT, TEMPERATURE = 0.5, 2.0


class Head(NamedTuple):
    """What the loss is computed from.

    Attributes:
        hidden: [1, N, d_M], with a gradient, as ``weight``, [V, d_M].
        teacher: [1, N, d_T].
        head: the teacher's, [V, d_T].
        labels: [1, N].
    """

    hidden: torch.Tensor
    weight: torch.Tensor
    teacher: torch.Tensor
    head: torch.Tensor
    labels: torch.Tensor


def drawn(tokens: int, vocabulary: int, width: int, teacher_width: int) -> Head:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, device=device)

    return Head(
        normal(1, tokens, width).requires_grad_(),
        normal(vocabulary, width).mul_(width**-0.5).requires_grad_(),
        normal(1, tokens, teacher_width),
        normal(vocabulary, teacher_width).mul_(teacher_width**-0.5),
        torch.randint(vocabulary, (1, tokens), generator=draw, device=device),
    )


def nll(x: Head) -> torch.Tensor:
    return cross_entropy_loss(x.hidden @ x.weight.T, x.labels)


def naive(x: Head) -> torch.Tensor:
    logits = x.hidden @ x.weight.T
    ours = torch.log_softmax(logits / TEMPERATURE, -1)
    with torch.no_grad():
        theirs = torch.log_softmax(x.teacher @ x.head.T / TEMPERATURE, -1)
    kl = TEMPERATURE**2 * (theirs.exp() * (theirs - ours)).sum()
    return (1 - WEIGHT) * cross_entropy_loss(logits, x.labels) + WEIGHT * kl


def chunked(x: Head) -> torch.Tensor:
    distillation = Distillation(WEIGHT, TEMPERATURE, reverse=False)
    distillation.head = x.head
    return distillation.loss(x.hidden, x.weight, teacher=x.teacher, labels=x.labels)


ARMS: dict[str, Callable[[Head], torch.Tensor]] = {"NLL": nll, "naive": naive, "chunked": chunked}


def measure(arm: str, shape: tuple[int, int, int, int]) -> tuple[int, torch.Tensor]:
    """Returns the bytes beyond what was there before, and the gradient of the states."""
    x = drawn(*shape)
    ARMS[arm](drawn(2, *shape[1:])).backward()  # what a first call alone allocates
    reset_peak()
    before = peak_bytes()
    (ARMS[arm](x) / shape[0]).backward()
    assert x.hidden.grad is not None
    return peak_bytes() - before, x.hidden.grad.cpu()


def measured(shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Measures every arm at one number of tokens."""
    found = {}
    for arm in ARMS:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found[arm] = process.submit(measure, arm, shape).result()
    wanted = found["naive"][1]
    return {
        "tokens": shape[0],
        "logits_bytes": 4 * shape[0] * shape[1],
        "peak_bytes": {arm: n_bytes for arm, (n_bytes, _) in found.items()},
        "gradient_error": float((found["chunked"][1] - wanted).norm() / wanted.norm()),
    }


def row(arm: str, sizes: list[dict[str, Any]]) -> str:
    cells = [arm]
    for size in sizes:
        n_bytes = size["peak_bytes"][arm]
        cells.append(f"{n_bytes / 1e9:.2f} GB, {n_bytes / size['logits_bytes']:.2f}")
    return f"| {' | '.join(cells)} |\n"


def report(found: dict[str, Any]) -> str:
    sizes, hardware = found["sizes"], found["machine"]["hardware"]
    heads = [f"{s['tokens']:,} tokens ({s['logits_bytes'] / 1e9:.2f} GB)" for s in sizes]
    worst = max(size["gradient_error"] for size in sizes)
    return (
        "# The logit loss's memory\n\n"
        "Forward and backward of an LM head's loss in fp32: the peak beyond what was there before, "
        "and the same in tensors [B, S, V], whose size stands above. "
        f"{found['vocabulary']:,} ids, student {found['width']} wide, teacher "
        f"{found['teacher_width']}. Made by `python recipes/distill_memory.py` on "
        f"{hardware.get('device_name') or hardware['cpu']}.\n\n"
        f"| loss | {' | '.join(heads)} |\n|---|{'--:|' * len(sizes)}\n"
        f"{''.join(row(arm, sizes) for arm in ARMS)}\n"
        "NLL: plain training's. naive: NLL and KL on whole tensors, by autograd. chunked: as "
        "`[distill]` computes the same; the states' gradient differs from naive's by at most "
        f"{worst:.1e} (relative norm).\n"
    )


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--width", type=int, default=512, help="the student's")
    parser.add_argument("--teacher-width", type=int, default=384)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    shape = (options.vocabulary, options.width, options.teacher_width)
    found = {
        "vocabulary": options.vocabulary,
        "width": options.width,
        "teacher_width": options.teacher_width,
        "sizes": [measured((tokens, *shape)) for tokens in options.tokens],
        "machine": surroundings(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "report.md").write_text(report(found))


if __name__ == "__main__":
    main()
