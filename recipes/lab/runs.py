"""Runs by what they are: a setting and a seed that were trained once serve every recipe.

A run's key is a hash of its resolved config (not of where it is written), of its seed and of the
lab's files. While it trains it lives in outputs/lab/runs/KEY; what it measured (metrics.jsonl,
summary.json) then goes to recipes/results/lab/KEY, which is committed.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab.launch import train
from let_titan.compare.arms import BOOKKEEPING, flatten
from let_titan.config import LetConfigManager
from let_titan.runs import FILES, Run

ROOT = Path(__file__).resolve().parents[2]
STUDENT = "recipes/lab/student.toml"


@dataclass(frozen=True)
class Place:
    """Where the lab's files, its runs and their results are."""

    root: Path = ROOT
    config: str = STUDENT
    lab: Path = ROOT / "outputs" / "lab"
    results: Path = ROOT / "recipes" / "results"


def key_of(place: Place, keys: Mapping[str, str]) -> str:
    """Returns 12 hex digits over all that decides what a run measures.

    Raises:
        FileNotFoundError: the lab is not made yet.
    """
    marker = place.lab / "lab.json"
    if not marker.exists():
        raise FileNotFoundError(f"{marker} is missing: run recipes/lab/make.py first.")
    flags = [f"--{key}={value}" for key, value in keys.items() if value not in ("true", "false")]
    flags += [f"--{key}" for key, value in keys.items() if value == "true"]
    config = LetConfigManager().parse_args(
        ["--job.config_file", str(place.root / place.config), *flags]
    )
    setting = {
        key: value
        for key, value in flatten(asdict(config)).items()
        if key.partition(".")[0] not in BOOKKEEPING
    }
    text = json.dumps([setting, json.loads(marker.read_text())], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_finished(place: Place, key: str) -> bool:
    return all((place.results / "lab" / key / name).exists() for name in FILES)


def finish(place: Place, key: str, keys: Mapping[str, str]) -> None:
    """Trains the run, or what is left of it, and keeps what it measured."""
    folder = place.lab / "runs" / key
    train(place.root, place.config, {**keys, "job.dump_folder": str(folder)})
    kept = place.results / "lab" / key
    kept.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, kept / name)
    shutil.rmtree(folder)


def load(place: Place, key: str, name: str) -> Run:
    """Reads a finished run, under the name that its recipe gives it."""
    return replace(Run.load(place.results / "lab" / key), name=name)
