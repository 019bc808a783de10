"""The teacher's states on their way to the student: normalised by running moments, then mapped."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors import torch as safetensors

from let_titan.alignment import Fitted, RunningMoments, build_width_map

Fit = Callable[[int, torch.device], Fitted]
"""(the teacher's width d_T, the device) -> what is fitted, from the start."""


class TeacherStates:
    """Does what ``let.teacher_norm`` and ``let.width_map`` ask for to each pair's states.

    Args:
        norm: "none", "center" or "standardize".
        width_map: "interpolate" leaves the width as it is, for the losses to map.
        pairs: how many states a microbatch has.
        width: d_M.
        fit: what is fitted to each pair's states, if anything.

    Attributes:
        fitted: one per pair, for the alignment, which has the student's states.
    """

    def __init__(
        self, norm: str, width_map: str, pairs: int, width: int, fit: Fit | None = None
    ) -> None:
        self.norm, self.width_map, self.pairs, self.width = norm, width_map, pairs, width
        self.fit = fit
        self.fitted: list[Fitted] = []
        self._moments: list[RunningMoments] = []
        self._saved = "[]"
        self._saved_maps = b""

    def start(self, d_t: int, device: torch.device) -> None:
        """Begins, or goes on from what was loaded; every rank calls, with a teacher or without."""
        self._map = build_width_map(self.width_map, d_t, self.width, device)
        if self.norm != "none":
            self._moments = [RunningMoments(self.norm, d_t, device) for _ in range(self.pairs)]
        # A checkpoint from before the first step with a teacher holds none.
        if saved := json.loads(self._saved):
            for moments, state in zip(self._moments, saved, strict=True):
                moments.load(state)
        if self.fit is not None:
            self.fitted = [self.fit(d_t, device) for _ in range(self.pairs)]
        if self.fitted and self._saved_maps:
            found = safetensors.load(self._saved_maps)
            for i, fitted in enumerate(self.fitted):
                fitted.load({name: found[f"{i}.{name}"] for name in fitted.state()})

    def __call__(
        self, hidden: Sequence[torch.Tensor], mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Returns the states of this rank's rows, [B, S, d_T] or mapped to [B, S, d_M]."""
        found = list(hidden)
        for i, moments in enumerate(self._moments):
            moments.observe(found[i], mask)
            found[i] = moments(found[i])
        return tuple(found if self._map is None else map(self._map, found))

    def end_step(self, left_out: bool) -> None:
        """Lets the step's tokens count for the steps to come; every rank calls.

        Those of a step that was ``left_out`` never count: one NaN would stay in all sums.
        """
        all_sums: list[RunningMoments | Fitted] = [*self._moments, *self.fitted]
        for sums in all_sums:
            if left_out:
                sums.discard_step()
            else:
                sums.end_step()

    def stop(self) -> None:
        """Frees what is on the device; later checkpoints still hold the last moments and maps."""
        self.load_state_dict(self.state_dict())
        self._moments, self._map, self.fitted = [], None, []

    def state_dict(self) -> dict[str, Any]:
        """Returns a part of the train state: {} without a norm and anything fitted.

        Each is one object, since DCP takes lists apart, and asks for shapes before the teacher is
        loaded: the moments as JSON, what is fitted as a safetensors file.
        """
        state: dict[str, Any] = {}
        if self.norm != "none":
            live = json.dumps([moments.state() for moments in self._moments])
            state["teacher_moments"] = live if self._moments else self._saved
        if self.fit is not None:
            state["width_maps"] = self._maps_in_bytes() if self.fitted else self._saved_maps
        return state

    def _maps_in_bytes(self) -> bytes:
        states = [fitted.state() for fitted in self.fitted]
        named = {f"{i}.{name}": x for i, state in enumerate(states) for name, x in state.items()}
        return safetensors.save({name: x.contiguous() for name, x in named.items()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state.get("teacher_moments", "[]")
        self._saved_maps = state.get("width_maps", b"")
