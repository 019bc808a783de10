"""A device on paper: tensors that say they are on "paper:0" and keep their numbers on the CPU.

What a CPU by itself never shows, a run on this device does: tensors of two devices in one
operation, and where the host waits for the device. ``claim`` must come before torchtitan looks for
a device, so a run on paper has a process of its own.
"""

import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "paper"
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
"""Operations whose result the host has to wait for."""
STRICT = ("cat", "stack", "mm", "bmm", "addmm", "gather", "scatter")
"""Operations that refuse even a single number of another device."""
OURS = ("causal_pieces",)
"""Of let_titan, which take what the host knows as a tensor of its own."""


class Paper(torch.Tensor):
    """A tensor of the device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Paper":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        note("tolist")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


class OnPaper(TorchDispatchMode):
    """While active, what is made on the device is ``Paper``."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


waits: list[str] = []
"""Where the host has waited: the operation, and the last line of ours on the way to it."""


def note(operation: str) -> None:
    frames = [f for f in traceback.extract_stack() if "let_titan" in Path(f.filename).parts]
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "torchtitan"
    waits.append(f"{operation} {last}")


def dispatched(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the numbers, once it has been looked at."""
    name = func.__name__.partition(".")[0]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    papers = [x for x in tensors if isinstance(x, Paper)]
    there = bool(papers)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == NAME
    if name in ("copy_", "_to_copy"):
        moves = name == "copy_" and 0 < len(papers) < 2
        if moves or (name == "_to_copy" and bool(papers) != there):
            note(name)
    elif papers:
        check(name, [x for x in tensors if not isinstance(x, Paper)])
    own = {id(x.held): x for x in papers}
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, Paper) else x, (args, kwargs))
    if kwargs.get("device") is not None and there:
        kwargs["device"] = torch.device("cpu")
    out = func(*args, **kwargs)

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return own.get(id(x)) if id(x) in own else Paper(x) if there else x

    return tree_map(wrapped, out)


def check(name: str, hosts: list[torch.Tensor]) -> None:
    """Looks at an operation on the device that has ``hosts``, tensors of the CPU, among its
    arguments.

    Raises:
        RuntimeError: as CUDA would.
    """
    if name in WAITS or (name.startswith("index") and hosts):
        note(name)
    elif name in OURS:
        return
    elif hosts and (name in STRICT or any(x.ndim for x in hosts)):
        shapes = [tuple(x.shape) for x in hosts]
        raise RuntimeError(f"{name}: tensors on two devices; of the CPU are {shapes}.")


class Module(_DummyBackendModule):
    """What torch and torchtitan ask of ``torch.cuda`` and its like."""

    def __getattr__(self, name: str) -> Any:
        if name in ("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats"):
            return lambda *_: None
        raise AttributeError(name)

    def _lazy_init(self) -> None:
        pass

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        return {}

    def get_device_name(self, device: Any = None) -> str:
        return "A100 on paper"

    def get_device_properties(self, device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80 * 2**30)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def attention(query, key, value, *, is_causal=False, enable_gqa=False, **_: Any) -> torch.Tensor:
    """torch's by plain products: it would choose among the kernels of a device that it knows."""
    if enable_gqa:
        times = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(times, 1) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    assert is_causal
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value


def claim() -> None:
    """Lets torch find the device as it finds a GPU."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    torch._C._set_only_lift_cpu_tensors(True)  # of torch.tensor(..., device=...): then a copy
    F.scaled_dot_product_attention = attention
