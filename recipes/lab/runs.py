"""Runs by what they are: a setting and a seed that were trained once serve every recipe.

A run's key is a hash of what its config sets (what differs from the defaults, so that a later key
of the config changes no older run's), of its seed and of the files that it reads, its teacher's
weights among them. While it trains it lives in outputs/lab/runs/KEY; what it measured
(metrics.jsonl, summary.json) then goes to recipes/results/lab/KEY, which is committed.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lab.bad_teachers import WEIGHTS
from lab.launch import flags, train
from let_titan.compare.arms import PLACES, flatten, is_idle, is_of_training
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.runs import FILES, Run, is_complete, read_summary

ROOT = Path(__file__).resolve().parents[2]
STUDENT = "recipes/lab/student.toml"
MAKE_SMOLLM2 = "recipes/lab/make_smollm2.py"
TOKENIZERS = "tokenizers"
FILE_KEYS = (*PLACES, "teacher.checkpoint", "teacher.cache")
"""Keys that name files; what these hold counts in their place (a cache holds its teacher's)."""


@dataclass(frozen=True)
class Place:
    """Where a setting's files, its runs and their results are.

    Attributes:
        config: of the student that all arms train.
        lab: holds lab.json, runs while they train, and tokenizers/ that arms name in the place of
            the config's.
        maker: the program that writes lab.json.
    """

    root: Path = ROOT
    config: str = STUDENT
    lab: Path = ROOT / "outputs" / "lab"
    results: Path = ROOT / "recipes" / "results"
    maker: str = "recipes/lab/make.py"


LAB = Place()
"""The first setting: a teacher and its student, both trained here."""

SMOLLM2 = Place(
    config="recipes/lab/smollm2.toml", lab=ROOT / "outputs" / "lab_smollm2", maker=MAKE_SMOLLM2
)
"""The second setting: a student of SmolLM2-135M."""

GPU = Place(config="recipes/lab/gpu.toml", lab=ROOT / "outputs" / "lab_gpu", maker=MAKE_SMOLLM2)
"""The setting for one GPU: students of 124M and more under SmolLM2-135M."""


class NotMade(FileNotFoundError):
    """What a recipe's runs read is not on this machine."""


def resolved(place: Place, keys: Mapping[str, str]) -> dict[str, Any]:
    """Returns {"section.key": value} of the run's config, without where it is written."""
    config = place.root / place.config
    return _parsed(config, config.stat().st_mtime_ns, tuple(flags(keys)))


@cache
def _parsed(config: Path, modified: int, flags: tuple[str, ...]) -> dict[str, Any]:
    """Parses what recipes ask for again and again: each time would take half a second."""
    parsed = LetConfigManager().parse_args(["--job.config_file", str(config), *flags])
    return what_is_trained(parsed.to_dict())


def what_is_trained(config: dict[str, Any]) -> dict[str, Any]:
    """Flattens a config and leaves out where the run and its files are."""
    return {
        key: value
        for key, value in flatten(config).items()
        if key not in FILE_KEYS and is_of_training(key)
    }


def files_read(place: Place, keys: Mapping[str, str]) -> dict[str, str]:
    """Returns the sha256 of what the run reads: corpus, tokenizer and the teacher it names.

    Raises:
        NotMade: the lab is not there yet, or not this teacher or tokenizer.
    """
    marker = place.lab / "lab.json"
    if not marker.exists():
        raise NotMade(f"{marker} is missing: run {place.maker} first (docs/method-lab.md).")
    known: dict[str, str] = json.loads(marker.read_text())
    named = {}
    if (teacher := keys.get("teacher.checkpoint")) is not None:
        named["teacher"] = f"{teacher}/{WEIGHTS}"
    if (tokenizer := keys.get("model.hf_assets_path")) is not None:
        is_file = tokenizer.endswith(".tiktoken")
        named["tokenizer"] = tokenizer if is_file else f"{tokenizer}/tokenizer.json"
    for path in named.values():
        if path not in known:
            raise NotMade(f"{marker} knows no {path}: run {place.maker}.")
    read = {
        Path(path).stem: sha
        for path, sha in known.items()
        if Path(path).name != WEIGHTS and TOKENIZERS not in Path(path).parts
    }
    return read | {name: known[path] for name, path in named.items()}


def key_of(place: Place, keys: Mapping[str, str]) -> str:
    """Returns 12 hex digits over all that decides what a run measures."""
    defaults = what_is_trained(LetJobConfig().to_dict())
    found = resolved(place, keys)
    setting = {key: value for key, value in found.items() if value != defaults.get(key)}
    text = json.dumps([setting, files_read(place, keys)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_finished(place: Place, keys: Mapping[str, str]) -> bool:
    """Whether the run was trained once.

    Raises:
        ValueError: it was, but with another value of some key, whose default has changed since.
    """
    folder = place.results / "lab" / key_of(place, keys)
    if not all((folder / name).exists() for name in FILES):
        return False
    if other := changed(folder, resolved(place, keys)):
        key, then, now = other
        raise ValueError(
            f"{folder} was trained with {key} = {then!r}, whose default is {now!r} "
            "now: state the old value in the lab's student.toml, or remove that folder."
        )
    return True


def changed(folder: Path, wanted: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Returns a key, its value in the run in ``folder`` and the wanted one, if any differ."""
    then = what_is_trained(read_summary(folder / "summary.json")["config"])
    now = json.loads(json.dumps(wanted, default=str))
    differing = (
        (key, then[key], now[key])
        for key in then.keys() & now.keys()
        if then[key] != now[key] and not is_idle(key, now)
    )
    return next(differing, None)


def check_unchanged(folder: Path, config: LetJobConfig) -> None:
    """Sees to it that the run in ``folder``, where one was begun, is the one that ``config`` makes.

    Raises:
        ValueError: it has another value of some key.
    """
    if not (folder / "summary.json").exists():
        return
    if other := changed(folder, what_is_trained(config.to_dict())):
        key, then, now = other
        raise ValueError(
            f"{folder} was trained with {key} = {then!r}, and {now!r} is asked for now: remove "
            "that folder, or it would be compared with runs that it does not belong to."
        )


def is_trained(root: Path, config: str, keys: Mapping[str, str], folder: Path) -> bool:
    """Whether ``folder`` has the run of ``config`` with ``keys`` to its end.

    Raises:
        ValueError: it has another run.
    """
    if (folder / "summary.json").exists():
        arguments = ["--job.config_file", str(root / config), *flags(keys)]
        check_unchanged(folder, LetConfigManager().parse_args(arguments))
    return is_complete(folder)


def finish(place: Place, keys: Mapping[str, str], end: float = math.inf) -> bool:
    """Trains the run, or what is left of it, and keeps what it measured.

    Args:
        end: of ``time.monotonic``; the step at which it comes is the run's last one for now.

    Returns:
        Whether the run is finished; if not, the next call goes on from its checkpoint.
    """
    key = key_of(place, keys)
    folder = place.lab / "runs" / key
    # Relative, since summary.json names it and is committed.
    here = str(folder.relative_to(place.root))
    train(place.root, place.config, {**keys, "job.dump_folder": here}, end=end)
    if not is_complete(folder):
        return False
    kept = place.results / "lab" / key
    kept.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, kept / name)
    shutil.rmtree(folder)
    return True


def load(place: Place, keys: Mapping[str, str], name: str) -> Run:
    """Reads a finished run, under the name that its recipe gives it.

    A key that the config has gained since stands at its default, which the run trained with.
    """
    run = Run.load(place.results / "lab" / key_of(place, keys))
    config = filled(run.summary["config"], LetJobConfig().to_dict())
    return replace(run, name=name, summary={**run.summary, "config": config})


def filled(found: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``found`` with what is missing from it at any depth taken from ``defaults``."""
    missing = {key: value for key, value in defaults.items() if key not in found}
    inner = {
        key: filled(value, defaults[key])
        for key, value in found.items()
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
    }
    return {**found, **inner, **missing}
