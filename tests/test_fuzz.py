"""Broken configs by the thousand: never a traceback, and nothing accepted that fails later.

Keys and types come from the dataclasses, so that a new key is covered as soon as it is there.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torchtitan.config import manager

from let_titan.checks import check_config, find_mistakes
from let_titan.config import LetConfigManager, LetJobConfig
from let_titan.errors import ConfigError, RunError
from let_titan.train import LetTrainer
from tests.support import Lab

EXAMPLES = 1000
TRAINED = 8
WITH_TYRO = 10
"""Every so many configs go through tyro, too, which takes nine tenths of the time."""


def leaves(section: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every key of the config with its declared type, as ("training.steps", int)."""
    for entry in fields(section):
        path = f"{name}{entry.name}"
        if is_dataclass(entry.type):
            yield from leaves(entry.type, f"{path}.")
        else:
            yield path, entry.type


KEYS = dict(leaves(LetJobConfig))
PLAIN = (
    "x none op 2 0 Adam model loss eager pile c4 c4_test dataloader paper debug last:2 1:2:0.5 "
    "last:9:1 quantize.linear.float8 quantize.linear.mx ../x . ~ * [ a,b %s{}"
)
WORDS = st.sampled_from([*PLAIN.split(), "", "a\0b", "é\n", "x" * 300])
INTEGERS = st.sampled_from([-2, -1, 0, 1, 2, 3, 4, 6, 8, 64, 2**31, 2**63, 10**30])
FLOATS = st.sampled_from(
    [-1.0, -0.0, 0.0, 1e-8, 0.1, 0.5, 1.0, 1.5, 3.0, 1e30, math.inf, -math.inf, math.nan]
)
JUNK = st.one_of(
    WORDS,
    INTEGERS,
    FLOATS,
    st.booleans(),
    st.lists(st.one_of(WORDS, INTEGERS), max_size=3),
    st.dictionaries(st.sampled_from(["x", "enable", "0"]), INTEGERS, max_size=2),
)


def values_of(declared: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type, right ones and wrong ones."""
    if get_origin(declared) is Literal:
        return st.sampled_from(get_args(declared))
    if get_origin(declared) is list:
        return st.lists(values_of(get_args(declared)[0]), max_size=3)
    if get_args(declared):  # a union; TOML has no null
        return st.one_of(*(values_of(part) for part in get_args(declared) if part is not NoneType))
    return {bool: st.booleans(), int: INTEGERS, float: FLOATS | INTEGERS, str: WORDS}[declared]


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Draws up to five changes of a right config: {"training.steps": "6"}; None takes a key out."""
    found = {}
    for path in draw(st.lists(st.sampled_from(list(KEYS)), max_size=5)):
        rare = draw(st.integers(0, 39))
        if rare == 0:
            found[f"{path}s"] = draw(JUNK)  # no such key
        elif rare == 1:
            found[path.rpartition(".")[0]] = draw(JUNK)  # no section
        elif rare == 2:
            found[path] = None
        else:
            found[path] = draw(JUNK if rare < 5 else values_of(KEYS[path]))
    return found


def to_toml(value: Any) -> str:
    """Writes a value as TOML does, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


def with_changes(sections: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the TOML text of ``sections`` changed."""
    tree: dict[str, Any] = {name: dict(values) for name, values in sections.items()}
    for path, value in found.items():
        *parents, key = path.split(".")
        place = tree
        for parent in parents:
            inner = place.setdefault(parent, {})
            place = inner if isinstance(inner, dict) else place.setdefault(f"{parent}_", {})
        if value is None:
            place.pop(key, None)
        else:
            place[key] = value
    return "".join(f"{json.dumps(name)} = {to_toml(values)}\n" for name, values in tree.items())


@pytest.fixture(scope="module")
def accepted(assets, tmp_path_factory):
    """Writes EXAMPLES configs, and returns (the TOML texts that pass every check, the refused)."""
    lab = Lab(assets, tmp_path_factory.mktemp("fuzz"))
    right: list[str] = []
    refused: list[str] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(found=changes(), let=st.booleans())
    def check(found: dict[str, Any], let: bool) -> None:
        text = with_changes(lab.sections({} if let else None), found)
        with tyro_skipped() if (len(right) + len(refused)) % WITH_TYRO else nullcontext():
            mistakes = all_mistakes(lab.folder / "fuzz.toml", text)
        assert all(len(mistake) > 20 and "\n" not in mistake for mistake in mistakes)
        (refused if mistakes else right).append(text)

    check()
    return right, refused


def tyro_skipped() -> Any:
    """While active, a parsed TOML is taken as it is: the command line has nothing to say."""
    return mock.patch.object(manager.tyro, "cli", lambda *args, default, **kwargs: default)


def all_mistakes(path: Path, text: str) -> list[str]:
    """Checks a config as ``main`` does, but for the first mistake only where it is not parsed."""
    path.write_text(text)
    try:
        config = LetConfigManager().parse_args(["--job.config_file", str(path)])
    except ConfigError as error:
        return [str(error)]
    return [str(mistake) for mistake in find_mistakes(config)]


def test_a_thousand_configs_end_in_words(accepted):
    right, refused = accepted
    assert len(right) + len(refused) >= EXAMPLES
    assert min(len(right), len(refused)) > EXAMPLES / 10


def test_what_is_accepted_trains(accepted, tmp_path, monkeypatch):
    """Trains a sample, evenly spread, of those that take no time: few tokens, nothing compiled.

    Or it ends in a sentence.
    """
    monkeypatch.chdir(tmp_path)  # where a folder lies that is drawn as a word
    small = [text for text in accepted[0] if not re.search(r'\d{5}|"compile"', text)]
    for i, text in enumerate(small[:: len(small) // TRAINED]):
        path, folder = tmp_path / f"{i}.toml", tmp_path / f"run{i}"
        path.write_text(text)
        args = ["--job.config_file", str(path), "--job.dump_folder", str(folder)]
        config = LetConfigManager().parse_args([*args, "--training.steps", "4"])
        check_config(config)
        trainer = LetTrainer(config)
        try:
            trainer.train()
        except RunError as error:  # such as a learning rate under which nothing stays finite
            assert len(str(error)) > 20 and "\n" not in str(error)
        finally:
            trainer.close()
            torch.use_deterministic_algorithms(False)
