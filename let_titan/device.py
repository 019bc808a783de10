"""What torch lacks on a CPU so that torchtitan 0.2.2 runs there; nothing of it is active on CUDA.

torchtitan asks ``torch._utils`` for the device while ``torchtitan.tools.utils`` is imported, and
takes "no accelerator" for "cuda". Only during that import do we answer for it
(``let_titan.before_torchtitan``), with a proxy of ``torch.cpu`` that has the functions torchtitan
calls; torch itself stays unpatched.

Private upstream names used: ``torch._utils._get_available_device_type``, ``_get_device_module``.
"""

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import psutil
import torch
import torch._utils

from let_titan.heap import give_back_free_pages

HAS_ACCELERATOR = torch._utils._get_available_device_type() is not None


def resident_bytes() -> int:
    """Returns this process's resident set in bytes, once garbage and free pages are given back."""
    gc.collect()
    give_back_free_pages()
    return psutil.Process().memory_info().rss


def peak_resident_bytes(pid: int | str = "self") -> int:
    """Returns the most bytes that a process has had resident so far, by the kernel's own count.

    That is ``VmHWM`` of /proc (Linux); getrusage's figure begins with the parent's peak. 0 when the
    process has ended.

    Raises:
        RuntimeError: the system keeps no such count.
    """
    status = Path(f"/proc/{pid}/status")
    if not Path("/proc/self/status").exists():
        raise RuntimeError("The peak of a process's memory is read from /proc: that needs Linux.")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]  # in kB
    return int(found[0]) * 1024 if found else 0


def memory_gib() -> float:
    """Returns this process's memory now, in GiB: reserved on the GPU, resident on a CPU."""
    n_bytes = torch.cuda.memory_reserved() if torch.cuda.is_available() else resident_bytes()
    return n_bytes / 2**30


def free_cached_memory() -> None:
    """Collects what nothing refers to any more and gives free memory back to the device.

    torchtitan switches automatic collection off, so freed modules wait for this.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cpu_name() -> str:
    """Returns the processor's model name, or its architecture where the system hides it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class CpuModule(ModuleType):
    """``torch.cpu`` with the accelerator functions that torchtitan calls."""

    def __init__(self) -> None:
        super().__init__("let_titan.device.cpu", torch.cpu.__doc__)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def current_device(self) -> int:
        """An index: ``barrier(device_ids=...)`` refuses torch.cpu's own "cpu"."""
        return int(os.environ.get("LOCAL_RANK", 0))

    def get_device_name(self, device: Any = None) -> str:
        return cpu_name()

    def get_device_properties(self, device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(total_memory=psutil.virtual_memory().total)

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        """A CPU keeps no peak: "peak" is the resident set at the time of asking."""
        resident = resident_bytes()
        return {"active_bytes.all.peak": resident, "reserved_bytes.all.peak": resident}

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        pass

    def empty_cache(self) -> None:
        pass


@contextmanager
def found_device() -> Iterator[None]:
    """While active, ``torch._utils`` names the CPU as the device where there is no accelerator."""
    if HAS_ACCELERATOR:
        yield
        return
    proxy = CpuModule()
    with (
        mock.patch.object(torch._utils, "_get_available_device_type", lambda: "cpu"),
        mock.patch.object(torch._utils, "_get_device_module", lambda device_type: proxy),
    ):
        yield


def refuse_late_import() -> None:
    """Raises if torchtitan was imported first on a machine without an accelerator.

    Raises:
        ImportError: torchtitan looked for a device before let_titan could answer for the CPU.
    """
    if not HAS_ACCELERATOR:
        raise ImportError(
            "Without an accelerator let_titan must be imported before torchtitan: put "
            "`import let_titan` above the first import of torchtitan."
        )
