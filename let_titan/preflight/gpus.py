"""The GPUs a run can be priced for. Every price names what is assumed of them."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        memory_bytes: the vendor's figure in decimal GB; the few GiB by which the device holds more
            are left to the CUDA context, NCCL and fragmentation.
        peak_flops: bf16, dense.
        peak_flops_fp32: without tensor cores, as torch multiplies unless TF32 is allowed.
        capability: CUDA's; float8 needs 8.9.
        mfu: model FLOPs utilisation assumed for bf16, from ``mfu_source``.
        mfu_float8: likewise with float8, still in terms of the bf16 peak; None without float8.
        mfu_source: who measured it, on what.
    """

    name: str
    memory_bytes: int
    peak_flops: float
    peak_flops_fp32: float
    capability: tuple[int, int]
    mfu: float
    mfu_float8: float | None
    mfu_source: str


A100 = Gpu(
    name="A100 SXM 80 GB",
    memory_bytes=80 * 10**9,
    peak_flops=312e12,  # NVIDIA's data sheet, without sparsity
    peak_flops_fp32=19.5e12,
    capability=(8, 0),
    mfu=0.58,
    mfu_float8=None,
    mfu_source="torchtitan's docs/performance.md of 2024: Llama 3 8B, FSDP2 on 64 A100, eager",
)

H100 = Gpu(
    name="H100 SXM 80 GB",
    memory_bytes=80 * 10**9,
    peak_flops=989e12,  # NVIDIA's data sheet, without sparsity
    peak_flops_fp32=67e12,
    capability=(9, 0),
    mfu=0.39,
    mfu_float8=0.39 * 8532 / 6667,
    mfu_source="torchtitan's benchmarks of 2024-12: Llama 3.1 8B, FSDP2 on 8 H100, compiled: "
    "6,667 tokens/s a GPU in bf16, 8,532 in float8",
)

GPUS = {
    "a100": A100,
    "a100-40gb": replace(
        A100,
        name="A100 SXM 40 GB",
        memory_bytes=40 * 10**9,
        mfu_source=f"that of the 80 GB kind: {A100.mfu_source}",
    ),
    "h100": H100,
    "h200": replace(
        H100,
        name="H200 SXM 141 GB",  # an H100 with more and faster memory
        memory_bytes=141 * 10**9,
        mfu_source=f"that of the H100: {H100.mfu_source}",
    ),
}

GPUS_PER_NODE = 8
"""Of all kinds, in the vendor's own machines."""
