"""Files that are not here: read by byte ranges, each tried again with back-off.

A range that fails is asked for again, so that a connection which drops or stalls costs that range
and not the file. The position in the corpus is the loader's; nothing is kept here.
"""

import functools
import io
import logging
import time
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub import HfFileSystem
from huggingface_hub.errors import OfflineModeIsEnabled

from let_titan.errors import ConfigError

HUB = "hf://"
REMOTE = ("http://", "https://")
RANGE = 8 * 2**20
"""Bytes asked for at once: enough to make the round trip cheap, little enough to ask again."""

T = TypeVar("T")

logger = logging.getLogger()  # the root, as torchtitan's


TRIES = 6
"""How often a range is asked for: 31 s of waiting in all, besides the timeouts."""
FIRST_WAIT = 1.0
"""Seconds before the second try; each further wait is twice as long."""
TIMEOUT = 30.0
"""Seconds without a byte after which a try has failed."""


def patiently(path: str, what: str, attempt: Callable[[], T]) -> T:
    """Returns ``attempt()``, tried again with back-off.

    Raises:
        ConfigError: it failed every time.
    """
    for count in range(1, TRIES + 1):
        try:
            return attempt()
        except FileNotFoundError as error:
            raise ConfigError(f"{path} does not exist: check dataset_path.") from error
        except Exception as error:  # each library and protocol has its own
            reason = f"{type(error).__name__}: {error}"
            if count == TRIES or is_final(error):
                break
            wait = FIRST_WAIT * 2 ** (count - 1)
            logger.warning(f"{path}: {what} failed ({reason}); again in {wait:g} s")
            time.sleep(wait)
    raise ConfigError(
        f"{path} cannot be read ({what}; tries: {count}; {reason}): check the network and "
        "give the same command again, which goes on from the last checkpoint without repeating or "
        "skipping a document."
    )


def is_final(error: Exception) -> bool:
    """Whether another try would fail alike: the file is missing or forbidden, or we are offline."""
    status = getattr(error, "code", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
    return refused or isinstance(error, OfflineModeIsEnabled)


@functools.cache
def hub() -> HfFileSystem:
    return HfFileSystem()


def hub_files(pattern: str) -> dict[str, int]:
    """Returns {address: bytes} of an ``hf://datasets/OWNER/NAME/...`` glob."""
    found: Any = patiently(pattern, "listing it", lambda: hub().glob(pattern, detail=True))
    return {HUB + path: facts["size"] for path, facts in found.items() if facts["type"] == "file"}


def remote_size(url: str) -> int:
    """Returns a file's bytes, as its server tells them."""

    def ask() -> int:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return int(answer.headers["Content-Length"])

    return patiently(url, "asking for its size", ask)


class RemoteFile(io.RawIOBase):
    """A remote file as a seekable stream of bytes.

    Args:
        path: ``http(s)://`` or ``hf://`` address.
        size: its bytes.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path, self.size, self._at = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self.size)
        if end <= self._at:
            return 0
        start = self._at
        data = patiently(self.path, f"bytes {start} to {end}", lambda: self._range(start, end))
        buffer[: len(data)] = data
        self._at = end
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        if self.path.startswith(HUB):
            data = hub().cat_file(self.path, start=start, end=end)
        else:
            headers = {"Range": f"bytes={start}-{end - 1}"}
            request = urllib.request.Request(self.path, headers=headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                if answer.status != 206 and (start, end) != (0, self.size):
                    raise OSError("its server sends no byte ranges")
                data = answer.read()
        if len(data) != end - start:
            raise EOFError(f"{len(data)} of {end - start} bytes came")
        return data
