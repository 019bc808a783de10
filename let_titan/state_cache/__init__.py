"""The teacher's states on a disk: written by one run of a sweep, read by the others."""

from let_titan.state_cache.files import StateFiles
from let_titan.state_cache.key import bytes_per_token, key_of, uses_cache
from let_titan.state_cache.open import begin_cache, check_cache, check_room, lock
from let_titan.state_cache.teacher import CachedTeacher, WritingTeacher

__all__ = [
    "CachedTeacher",
    "StateFiles",
    "WritingTeacher",
    "begin_cache",
    "bytes_per_token",
    "check_cache",
    "check_room",
    "key_of",
    "lock",
    "uses_cache",
]
