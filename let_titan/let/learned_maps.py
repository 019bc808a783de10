"""Learned width maps in a run: optimized and clipped with the student, gone with the teacher."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import nn
from torch.optim import Optimizer
from torchtitan.components.optimizer import OptimizersContainer, build_optimizers
from torchtitan.distributed import ParallelDims

from let_titan.alignment import LEARNED, LearnedMap, map_flops
from let_titan.config import LetJobConfig
from let_titan.upstream import clipping_by

ADAM = "adam"
"""Before the names of what the optimizer keeps."""


class LearnedMaps:
    """The maps of a run's pairs, from the first step with a teacher to the last.

    They are whole on every rank and no part of the model: FSDP2, a pipeline's stages, the model's
    checkpoint and its export do not meet them. Weights and Adam's moments are in the train state,
    since DCP asks a model for its shapes before the teacher's width is known.

    Args:
        name: ``let.width_map``; nothing here does anything unless it is of ``LEARNED``.
        pairs: how many maps.
        width: d_M.
        config: of the optimizer, the student's own.
        dims: the layout.
        optimizers: torchtitan's, which the maps' is put into.

    Attributes:
        maps: while there is a teacher.
    """

    def __init__(
        self,
        name: str,
        pairs: int,
        width: int,
        config: LetJobConfig,
        dims: ParallelDims,
        optimizers: OptimizersContainer,
    ) -> None:
        self.name, self.pairs, self.width = name, pairs, width
        self.config, self.dims, self.optimizers = config, dims, optimizers
        self.maps: list[LearnedMap] = []
        self._optimizer: Optimizer | None = None
        self._saved = b""

    def start(self, d_t: int, device: torch.device) -> None:
        """Begins, or goes on from what was loaded; every rank calls."""
        if self.name not in LEARNED:
            return
        self.maps = [LearnedMap(self.name, self.width, d_t, device) for _ in range(self.pairs)]
        built = build_optimizers([self._module()], self.config.optimizer, self.dims)
        (self._optimizer,) = built.optimizers
        if self._saved:
            self._restore(safetensors.load(self._saved))
        # Behind the model's, which torchtitan's state dict pairs with the model's parts by order.
        self.optimizers.optimizers.append(self._optimizer)

    @property
    def flops_per_token(self) -> int:
        """What the maps take, while there are any."""
        return sum(map_flops(*learned.matrix.shape) for learned in self.maps)

    def begin_step(self) -> None:
        for learned in self.maps:
            learned.begin_step()

    @contextmanager
    def clipping(self) -> Iterator[None]:
        """While active, a train step's clipping counts the maps' gradients, too."""
        if not self.maps:
            yield
            return
        with clipping_by(self._clip):
            yield

    def _clip(
        self,
        clip: Callable[..., torch.Tensor],
        parameters: Iterable[torch.Tensor],
        max_norm: float,
        **options: Any,
    ) -> torch.Tensor:
        """Clips the student's gradients and the maps' by their joint norm, which it returns."""
        assert self._optimizer is not None
        for learned in self.maps:
            learned.finish()
        parameters, own = list(parameters), list(self._module().parameters())
        student = clip(parameters, math.inf, **options)  # its norm in any layout, no clipping
        ours = nn.utils.get_total_norm([p.grad for p in own if p.grad is not None])
        norm = torch.stack((student, ours.to(student))).norm()
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, options.get("foreach"))
        nn.utils.clip_grads_with_norm_(own, max_norm, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.optimizers.optimizers[0].param_groups[0]["lr"]
        return norm

    def stop(self) -> None:
        """Drops the maps and their optimizer; no later checkpoint holds them."""
        if self._optimizer is not None:
            self.optimizers.optimizers.remove(self._optimizer)
        self.maps, self._optimizer, self._saved = [], None, b""

    def state_dict(self) -> dict[str, bytes]:
        """Returns a part of the train state, a safetensors file; {} without learned maps."""
        if self.name not in LEARNED:
            return {}
        return {"learned_maps": safetensors.save(self._tensors()) if self.maps else self._saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state.get("learned_maps", b"")

    def _module(self) -> nn.ModuleList:
        return nn.ModuleList(self.maps)

    def _tensors(self) -> dict[str, torch.Tensor]:
        assert self._optimizer is not None
        found = dict(self._module().state_dict())
        for i, state in self._optimizer.state_dict()["state"].items():
            found |= {f"{ADAM}.{i}.{name}": value for name, value in state.items()}
        return {name: value.contiguous().cpu() for name, value in found.items()}

    def _restore(self, saved: dict[str, torch.Tensor]) -> None:
        assert self._optimizer is not None
        adam: dict[int, dict[str, torch.Tensor]] = {}
        for name in [name for name in saved if name.startswith(f"{ADAM}.")]:
            _, i, what = name.split(".")
            adam.setdefault(int(i), {})[what] = saved.pop(name)
        self._module().load_state_dict(saved)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": adam, "param_groups": groups})
