"""A run's config from its TOML and command line.

Precedence: command line > TOML > let.recipe's named defaults > the sections' defaults. Names and
types of a TOML's values are checked here, since torchtitan and tyro only warn of them; what the
values mean together is checked in ``let_titan.checks``.
"""

import sys
from typing import Any

from torchtitan.config import ConfigManager, JobConfig

from let_titan.config.file import check_file, value_mistakes
from let_titan.config.sections import LetJobConfig
from let_titan.errors import ConfigError, LocalConfigError, one_line

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "loss": "cosine",
        "width_map": "interpolate",
        "schedule": "linear",
        "lambda_0": 0.1,
        "s_stop_fraction": 0.15,
    },
}
"""Named defaults of [let]. The paper's also is "last -> k", which is what teacher.layer says."""


class LetConfigManager(ConfigManager):
    """torchtitan's ConfigManager, with recipes and with [let] keys known to be explicit or not.

    Overrides two private names of torchtitan 0.2.2: ``_maybe_load_toml``, the only place where the
    TOML's own keys can be told from defaults, and ``_validate_config``, which raises a bare
    Exception; calls a third, ``_maybe_add_custom_config``.
    """

    def __init__(self) -> None:
        super().__init__(LetJobConfig)

    def parse_args(self, args: list[str] | None = None) -> LetJobConfig:
        """Parses TOML and command line; s_stop and s_stop_fraction never both remain set.

        Raises:
            ConfigError: the file cannot be read, a key or a [let] section is wrong.
        """
        args = sys.argv[1:] if args is None else args
        try:
            config = super().parse_args(args)
        except ConfigError:
            raise
        except (ImportError, AttributeError, TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"The config is not valid: {error}") from error
        assert isinstance(config, LetJobConfig)
        return config

    def _maybe_load_toml(self, args: list[str]) -> dict[str, Any]:
        check_file(value_of("job.config_file", args))
        values = super()._maybe_load_toml(args) or {}
        mistakes = list(value_mistakes(self._sections(args, values), values))
        if mistakes:
            raise ConfigError(str(mistakes[0]), others=mistakes[1:])
        section = values.get("let", {})
        from_cli = keys_on_command_line(args, "let")
        explicit = set(section) | from_cli
        if explicit and "enable" not in explicit:
            raise ConfigError(
                f"[let] sets {', '.join(sorted(explicit))} but not enable: add enable = true to "
                "train with a teacher, or drop these keys for a baseline."
            )
        if "let" in values and not explicit:
            raise ConfigError(
                "[let] is empty: add enable = true to train with a teacher, or drop the section."
            )
        if explicit:
            recipe = value_of("let.recipe", args) or section.get("recipe", "")
            values["let"] = with_recipe(section, recipe, from_cli)
        return values

    def _sections(self, args: list[str], values: dict[str, Any]) -> type[JobConfig]:
        """Returns what declares a TOML's names: with job.custom_config_module, its keys, too."""
        job = values.get("job", {})
        named = job.get("custom_config_module", "") if isinstance(job, dict) else ""
        if not isinstance(named, str):  # which has no module to import, as its type will tell
            return self.config_cls
        try:
            return self._maybe_add_custom_config(args, values)
        except Exception as error:  # the module's code may raise anything
            raise LocalConfigError(
                f"job.custom_config_module cannot be used ({one_line(error)}): put the module on "
                "PYTHONPATH, mend it, or leave the key out."
            ) from error

    def _validate_config(self) -> None:
        try:
            super()._validate_config()
        except Exception as error:
            if "old tokenizer.model" in str(error):  # its last check; such a file is read here
                return
            raise ConfigError(" ".join(str(part).strip() for part in error.args)) from error


def keys_on_command_line(args: list[str], section: str) -> set[str]:
    """Returns the keys of ``section`` that ``args`` set: ``--let.s-stop 5`` gives {"s_stop"}."""
    keys = set()
    for arg in args:
        name = arg.removeprefix("--").partition("=")[0].replace("-", "_")
        if arg.startswith("--") and name.startswith(f"{section}."):
            keys.add(name.removeprefix(f"{section}.").removeprefix("no_"))
    return keys


def value_of(key: str, args: list[str]) -> str | None:
    """Returns what the command line gives for ``key``, as "--key=value" or "--key value"."""
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name.replace("-", "_") == f"__{key}":
            return value if equals else next(iter(args[i + 1 :]), None)
    return None


def without_keys(args: list[str], keys: set[str]) -> list[str]:
    """Returns ``args`` without ``keys`` and their values, as "--key=value" or "--key value"."""
    kept, has_value = [], False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if has_value:
            has_value = False
        elif arg.startswith("--") and name.removeprefix("--").replace("-", "_") in keys:
            has_value = not equals
        else:
            kept.append(arg)
    return kept


def with_recipe(section: dict[str, Any], recipe: str, from_cli: set[str]) -> dict[str, Any]:
    """Fills in what ``section`` leaves to its recipe; of s_stop's two forms only one stays set."""
    if recipe and recipe not in RECIPES:
        raise ConfigError(
            f"let.recipe = {recipe!r} is unknown: choose one of {', '.join(RECIPES)}."
        )
    forms = {"s_stop", "s_stop_fraction"}
    if forms <= set(section) or forms <= from_cli:
        raise ConfigError("let.s_stop and let.s_stop_fraction are both set: keep the one you mean.")
    merged = {**RECIPES.get(recipe, {}), **section}
    if "s_stop" in section or "s_stop" in from_cli:
        merged["s_stop_fraction"] = 0.0
    if "s_stop_fraction" in from_cli:
        merged["s_stop"] = 0
    return merged
