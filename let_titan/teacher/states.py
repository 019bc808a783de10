"""The teacher's states on their way to the student: normalised by running moments, then mapped."""

import json
from collections.abc import Sequence

import torch

from let_titan.alignment import RunningMoments, build_width_map


class TeacherStates:
    """Does what ``let.teacher_norm`` and ``let.width_map`` ask for to each pair's states.

    Args:
        norm: "none", "center" or "standardize".
        width_map: "interpolate" leaves the width as it is, for the losses to map.
        pairs: how many states a microbatch has.
        width: d_M.
    """

    def __init__(self, norm: str, width_map: str, pairs: int, width: int) -> None:
        self.norm, self.width_map, self.pairs, self.width = norm, width_map, pairs, width
        self._moments: list[RunningMoments] = []
        self._saved = "[]"

    def start(self, d_t: int, device: torch.device) -> None:
        """Begins, or goes on from what was loaded; every rank calls, with a teacher or without."""
        self._map = build_width_map(self.width_map, d_t, self.width, device)
        if self.norm != "none":
            self._moments = [RunningMoments(self.norm, d_t, device) for _ in range(self.pairs)]
        # Of a checkpoint before the first step with a teacher there is nothing to go on from.
        for moments, state in zip(self._moments, json.loads(self._saved), strict=False):
            moments.load(state)

    def __call__(
        self, hidden: Sequence[torch.Tensor], mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Returns the states of this rank's rows, [B, S, d_T] or mapped to [B, S, d_M]."""
        found = list(hidden)
        for i, moments in enumerate(self._moments):
            moments.observe(found[i], mask)
            found[i] = moments(found[i])
        return tuple(found if self._map is None else map(self._map, found))

    def end_step(self) -> None:
        """Lets the step's tokens count for the steps to come; every rank calls."""
        for moments in self._moments:
            moments.end_step()

    def stop(self) -> None:
        """Frees what is on the device; a checkpoint still holds the last moments."""
        self._saved = self.state_dict().get("teacher_moments", "[]")
        self._moments, self._map = [], None

    def state_dict(self) -> dict[str, str]:
        """Returns a part of the train state: JSON, since DCP takes lists apart; {} without norm."""
        if self.norm == "none":
            return {}
        live = json.dumps([moments.state() for moments in self._moments])
        return {"teacher_moments": live if self._moments else self._saved}

    def load_state_dict(self, state: dict[str, str]) -> None:
        self._saved = state.get("teacher_moments", "[]")
