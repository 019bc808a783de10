"""docs/configuration.md has every key of our sections, with its default."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from let_titan.config import Distill, Export, Let, Teacher

PAGE = Path("docs/configuration.md")


def told() -> dict[str, str]:
    """Returns {"section.key": its default in TOML}; "" where the page gives none."""
    found: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`.*?) \|(.*?)\|", PAGE.read_text(), flags=re.M):
        keys = re.findall(r"`([\w.*]+)`", names)
        section = keys[0].partition(".")[0]
        keys = [section + key if key.startswith(".") else key for key in keys]
        defaults = re.findall(r"`(.*?)`", values) or [""]
        found |= dict(zip(keys, defaults, strict=True))
    return found


@pytest.mark.parametrize("section", [Let, Teacher, Distill, Export])
def test_every_key_stands_there_with_its_default(section):
    page, name = told(), section.__name__.lower()
    for key, value in dataclasses.asdict(section()).items():
        default = page[f"{name}.{key}"]
        assert (json.loads(default) if default else "") == value, key
