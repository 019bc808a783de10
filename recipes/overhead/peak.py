"""A process's peak memory since a moment: on the GPU torch's own count, on a CPU the kernel's."""

from pathlib import Path

import torch

from let_titan.device import free_cached_memory, peak_resident_bytes, resident_bytes


def reset_peak() -> None:
    """Forgets what was used before, after giving free memory back."""
    free_cached_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    resident_bytes()  # trims the heap
    Path("/proc/self/clear_refs").write_text("5")  # the resident set's high-water mark, proc(5)


def peak_bytes() -> int:
    """Returns the peak since ``reset_peak``: allocated by torch on a GPU, resident on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()
