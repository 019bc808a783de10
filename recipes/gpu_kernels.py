"""What will a GPU's kernels for the alignment's gradient leave in memory? Read without a GPU.

    python recipes/gpu_kernels.py [--out FOLDER]

Inductor writes Triton code before it asks a GPU for more than its properties. Here it is asked for
the code of the paper's loss as backward runs it, from tensors without memory, where torch takes
this machine for one with an H100. Counted are its kernels and what they write beside the result, as
let_titan has the loss and with torch.lerp between the widths. Needs torch built for CUDA, with
Triton, and no GPU. Writes recipes/results/gpu_kernels/torch-VERSION/: results.json, report.md.
"""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from result_files import write
from torch._inductor import compile_fx, graph
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.exc import InductorError
from torch._subclasses import FakeTensorMode, fake_tensor
from torch.fx.experimental.proxy_tensor import make_fx

from let_titan.alignment import cosine_alignment, interpolate_width
from let_titan.alignment.gradient import added_gradient
from let_titan.run.summary import surroundings

OUT = Path(__file__).parent / "results" / "gpu_kernels"
TORCH = ".".join(torch.__version__.split(".")[:2])
BATCH, SEQ_LEN = 8, 2048
PAIRS = (
    ("1.4B under SmolLM-135M", 2048, 576, torch.bfloat16, torch.bfloat16),
    ("the same on one GPU, in fp32 under AMP", 2048, 576, torch.float32, torch.bfloat16),
    ("1.4B under OPT-125M or Pythia-160M", 2048, 768, torch.bfloat16, torch.bfloat16),
    ("3B under SmolLM-135M", 2560, 576, torch.bfloat16, torch.bfloat16),
    ("7B under SmolLM-135M", 4096, 576, torch.bfloat16, torch.bfloat16),
    ("7B under Llama-3.2-1B", 4096, 2048, torch.bfloat16, torch.bfloat16),
    ("70B under Llama-3.1-8B", 8192, 4096, torch.bfloat16, torch.bfloat16),
    ("a wider teacher", 576, 2048, torch.bfloat16, torch.bfloat16),
    ("equal widths", 2048, 2048, torch.bfloat16, torch.bfloat16),
)
"""(name, d_M, d_T, the student's dtype, the teacher's)."""

H100 = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
    shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448,
    shared_memory_per_multiprocessor=233_472,
    L2_cache_size=50 * 2**20,
    total_memory=80 * 2**30,
)


def pretend_gpu() -> None:
    """Lets torch and Triton find an H100 until this process ends.

    Private names of torch 2.11 to 2.13, of which a change shows as an error, not as another count.

    Raises:
        SystemExit: this torch was built without CUDA.
    """
    if torch.version.cuda is None:
        raise SystemExit(
            "recipes/gpu_kernels.py: this torch was built without CUDA, and inductor without it "
            "writes no code for a GPU: use a build with CUDA."
        )
    import triton
    from torch._dynamo.device_interface import CudaInterface
    from triton.backends.compiler import GPUTarget

    torch._C._ensureCUDADeviceGuardSet()  # which torch does where no GPU is to be found

    def always(value: Any) -> Callable[..., Any]:
        return lambda *_, **__: value

    answers: dict[tuple[Any, str], Any] = {
        (torch.cuda, "is_available"): True,
        (torch.cuda, "_lazy_init"): None,
        (torch.cuda, "_exchange_device"): 0,
        (torch.cuda, "_maybe_exchange_device"): 0,
        (torch.cuda, "get_device_properties"): H100,
        (torch.cuda, "get_device_capability"): (H100.major, H100.minor),
        (torch.cuda, "get_rng_state"): torch.zeros(16, dtype=torch.uint8),
        (torch.cuda, "set_rng_state"): None,
        (torch._C, "_cuda_getDevice"): 0,
        (fake_tensor, "init_gpu_context"): None,
        (CudaInterface, "get_device_properties"): H100,
        (CudaInterface.Worker, "get_device_properties"): H100,
    }
    for (owner, name), value in answers.items():
        answer = always(value)
        setattr(owner, name, staticmethod(answer) if isinstance(owner, type) else answer)
    target = GPUTarget("cuda", 10 * H100.major + H100.minor, H100.warp_size)
    triton.runtime.driver.set_active(SimpleNamespace(get_current_target=always(target)))


def code_of(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> str:
    """Returns the program that inductor makes of a function of tensors without memory."""
    found = []

    def stop(lowering: graph.GraphLowering) -> None:
        found.append(lowering.codegen()[0].value)
        raise NotImplementedError("no GPU to load the code on")

    traced = make_fx(function, decomposition_table=select_decomp_table())(*arguments)
    with (
        mock.patch.object(graph.GraphLowering, "compile_to_module", stop),
        torch._inductor.config.patch(compile_threads=1, force_disable_caches=True),
        suppress(InductorError),  # what ``stop`` raises becomes one
    ):
        compile_fx.compile_fx_inner(traced, list(arguments))
    (code,) = found
    return code


def look(
    d_m: int, d_t: int, dtype: torch.dtype, of_teacher: torch.dtype, interpolate: Callable[..., Any]
) -> dict[str, int]:
    """Returns kernels, and bytes a token that must move and that move besides.

    Args:
        d_m, d_t: the widths.
        dtype, of_teacher: of the states.
        interpolate: in ``interpolate_width``'s stead.
    """
    add = added_gradient(cosine_alignment)

    def flat(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gradient, sums = add(*arguments)
        return gradient, *sums

    with (
        FakeTensorMode(),
        mock.patch("let_titan.alignment.cosine.interpolate_width", interpolate),
    ):
        hidden = torch.empty(BATCH, SEQ_LEN, d_m, device="cuda", dtype=dtype)
        teacher = torch.empty(BATCH, SEQ_LEN, d_t, device="cuda", dtype=of_teacher)
        mask = torch.empty(BATCH, SEQ_LEN, device="cuda", dtype=torch.bool)
        scale = torch.empty((), device="cuda")
        code = code_of(flat, (torch.empty_like(hidden), scale, hidden, teacher, mask))
    made = re.findall(r"= empty_strided_\w+\(\(([\d, ]*)\), \([^)]*\), torch\.(\w+)\)", code)
    sizes = [
        math.prod(int(n) for n in shape.split(",") if n.strip()) * getattr(torch, kind).itemsize
        for shape, kind in made
    ]
    tokens = BATCH * SEQ_LEN
    needed = 3 * d_m * dtype.itemsize + d_t * of_teacher.itemsize
    result = d_m * dtype.itemsize
    kept = sum(size for size in sizes if size > 64 * tokens) // tokens - result
    return {
        "kernels": code.count("async_compile.triton("),
        "needed_bytes": needed,
        "besides_bytes": 2 * kept,  # written, and read again
    }


def lerp(states: torch.Tensor, width: int) -> torch.Tensor:
    """``interpolate_width`` with torch.lerp."""
    d_t = states.shape[-1]
    if d_t == width:
        return states
    centres = torch.arange(width, device=states.device, dtype=torch.float32) + 0.5
    positions = (centres * (d_t / width) - 0.5).clamp(0, d_t - 1)
    left = positions.long()
    right = (left + 1).clamp(max=d_t - 1)
    return torch.lerp(states[..., left], states[..., right], positions - left)


def report(rows: Sequence[dict[str, Any]], where: dict[str, Any]) -> str:
    lines = [
        f"| {row['name']} ({row['d_m']:,} and {row['d_t']:,}) | {row['ours']['needed_bytes']:,} "
        f"| {row['ours']['besides_bytes']:,} | {row['lerp']['besides_bytes']:,} "
        f"| {row['ours']['kernels']} |"
        for row in rows
    ]
    table = "\n".join(lines)
    return f"""# What the alignment's gradient moves through a GPU's memory, by its code

Bytes a token of what must be read or written once (the student's states, what comes from above, the
teacher's states, the sum), and of what the kernels write besides and read again for their second
pass over a token: as let_titan interpolates, and with `torch.lerp`, as it did before.

| widths | must move | besides | besides, with lerp | kernels |
|---|--:|--:|--:|--:|
{table}

The first kernel does all the work; one or two more add up the tokens' cosines, one number each. The
second look at the student's and the teacher's states is served by the cache as long as it holds
a block's. Counted in the code that inductor writes for compute capability 9.0, with torch
{where["versions"]["torch"]}; no GPU has run it. Made by `python recipes/gpu_kernels.py`.
"""


def main(args: list[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.formatter_class = argparse.RawDescriptionHelpFormatter
    flags.add_argument("--out", type=Path, default=OUT / f"torch-{TORCH}")
    own = flags.parse_args(args)
    where = surroundings()
    pretend_gpu()
    rows = []
    for name, d_m, d_t, dtype, of_teacher in PAIRS:
        widths = (d_m, d_t, dtype, of_teacher)
        found = {"ours": look(*widths, interpolate_width), "lerp": look(*widths, lerp)}
        rows.append({"name": name, "d_m": d_m, "d_t": d_t, "dtype": str(dtype)} | found)
    write(own.out, {"rows": rows}, where, report(rows, where))


if __name__ == "__main__":
    main()
