"""Compares a TOML file's names and types with the config's dataclasses."""

import difflib
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from let_titan.errors import ConfigError


def check_file(path: str | None) -> None:
    """Reads the TOML once before torchtitan does, which would log a traceback."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            tomllib.load(file)
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"The config file {path!r} cannot be read ({reason}): give --job.config_file a TOML "
            "file."
        ) from error


def value_mistakes(section: Any, values: dict[str, Any], name: str = "") -> Iterator[ConfigError]:
    """Checks names and types of a TOML's values; ``name`` is the path to ``section``, as "let."."""
    declared: dict[str, Any] = {entry.name: entry.type for entry in fields(section)}
    for key, value in values.items():
        path, wanted = f"{name}{key}", declared.get(key)
        if wanted is None:
            near = difflib.get_close_matches(key, declared, n=1)
            cure = f"did you mean {name}{near[0]}?" if near else "--help lists what there is."
            yield ConfigError(f"{path} is unknown: {cure}")
        elif is_dataclass(wanted) and isinstance(value, dict):
            yield from value_mistakes(wanted, value, f"{path}.")
        elif is_dataclass(wanted):
            yield ConfigError(f"{path} = {value!r} must be a section: write [{path}].")
        elif not has_type(value, wanted):
            yield ConfigError(
                f"{path} = {value!r} has the wrong type: it must be {type_name(wanted)}."
            )
        elif isinstance(value, str) and "\0" in value:
            yield ConfigError(f"{path} = {value!r} has a NUL, which no path or name may have.")


def has_type(value: Any, wanted: Any) -> bool:
    """Whether ``value`` is of a declared type; to Python, but not here, true is an int, too."""
    if isinstance(value, bool) and bool not in (wanted, *get_args(wanted)):
        return False
    try:
        check_type(value, wanted, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    return True


def type_name(declared: Any) -> str:
    plain = isinstance(declared, type) and not get_args(declared)
    return declared.__name__ if plain else str(declared).replace("typing.", "")
