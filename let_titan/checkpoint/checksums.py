"""Checksums beside a checkpoint's files: DCP itself would silently load a flipped byte.

Each rank writes the sums of its own data files to ``__{rank}_checksums.json`` before ``.metadata``
makes the folder whole. The files are DCP's, so plain torchtitan loads the checkpoint, too.
"""

import json
from pathlib import Path

import xxhash
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from let_titan.checkpoint.folders import METADATA

SUFFIX = "_checksums.json"


class ChecksumWriter(FileSystemWriter):
    """DCP's writer that leaves the checksum of everything it wrote."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's files, then their sums."""
        try:
            future = super().write_data(plan, planner)
        except RuntimeError as error:
            hidden = os_error_beneath(error)
            raise (hidden or error) from None
        names = {result.storage_data.relative_path for result in future.wait()}
        prefix = plan.storage_data.prefix.rstrip("_")  # "__0_"
        write_sums(Path(self.path), f"{prefix}{SUFFIX}", sorted(names))
        return future

    def finish(self, metadata, results) -> None:  # type: ignore[no-untyped-def]
        """Completes the checkpoint, then notes the sum of ``.metadata`` itself."""
        super().finish(metadata, results)
        write_sums(Path(self.path), f"metadata{SUFFIX}", [METADATA])


def os_error_beneath(error: BaseException) -> OSError | None:
    """Returns the OSError that torch.save hides behind an error of its own, where there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause


def write_sums(folder: Path, name: str, files: list[str]) -> None:
    (folder / name).write_text(json.dumps({file: checksum(folder / file) for file in files}))


def checksum(path: Path) -> str:
    """Returns a file's XXH3 of 128 bits: read at memory speed, in blocks of 16 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()


def damaged_files(folder: Path, share: int = 0, shares: int = 1) -> list[str]:
    """Finds what is missing from a checkpoint or is not what was written.

    Args:
        folder: a whole checkpoint. Without sums (plain torchtitan's) only presence is checked.
        share: which part of the files to read, of ``shares``: ranks split the work.

    Returns:
        The names of the files.
    """
    sums: dict[str, str] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            sums |= json.loads(path.read_text())
        except (OSError, ValueError):
            return [path.name]
    try:
        infos = read_metadata(folder).storage_data.values()
    except ValueError:
        return [METADATA]
    wanted = sorted({*(info.relative_path for info in infos), *sums})[share::shares]
    return [name for name in wanted if not is_intact(folder / name, sums.get(name))]


def is_intact(path: Path, wanted: str | None) -> bool:
    """Whether a file is there and is what was written; not if its disk cannot read it."""
    try:
        return path.is_file() and (wanted is None or checksum(path) == wanted)
    except OSError:
        return False


def read_metadata(folder: Path) -> Metadata:
    """Reads a checkpoint's ``.metadata``, a pickle, if it is what was written.

    Raises:
        ValueError: it is not, or it has no sum and cannot be read.
    """
    sums = folder / f"metadata{SUFFIX}"
    try:
        wanted = json.loads(sums.read_text())[METADATA] if sums.exists() else None
        if is_intact(folder / METADATA, wanted):
            return FileSystemReader(folder).read_metadata()
    except Exception as error:  # whatever unpickling a damaged file that has no sum may raise
        raise ValueError(f"{folder / METADATA} cannot be read ({error}).") from error
    raise ValueError(f"{folder / METADATA} is not what was written.")
