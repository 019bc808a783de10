"""teacher.cache: what the states take on a disk, and whether this machine's has room for them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from let_titan.config import LetJobConfig
from let_titan.disk import existing_parent
from let_titan.preflight.cost import Cost
from let_titan.preflight.teacher import PricedTeacher
from let_titan.preflight.units import gib
from let_titan.state_cache import bytes_per_token, uses_cache


def cache_facts(
    config: LetJobConfig, teacher: PricedTeacher | None, cost: Cost
) -> dict[str, Any] | None:
    """What teacher.cache takes until s_stop, and how fast a run without a teacher reads it."""
    if teacher is None or not uses_cache(config):
        return None
    layers = set(teacher.description.layers)
    each = bytes_per_token(len(layers), teacher.description.width)
    return {
        "bytes_per_token": each,
        "bytes": round(cost.tokens * cost.let_share) * each,
        "bytes_read_per_s": round(cost.tokens_per_s_after * each),
    }


def cache_advice(config: LetJobConfig, cache: dict[str, Any] | None) -> Iterator[str]:
    """Compares the states' size with this machine's disk; a run that starts would be refused."""
    if cache is None:
        return
    folder = existing_parent(Path(config.teacher.cache).expanduser())
    free = shutil.disk_usage(folder).free
    if cache["bytes"] > free:
        yield (
            f"The teacher's states take {gib(cache['bytes'])} ({cache['bytes_per_token']:,} bytes "
            f"a token) and {str(folder)!r} has {gib(free)} free on this machine: choose another "
            "teacher.cache, or leave it out."
        )
