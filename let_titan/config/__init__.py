"""The config of a run: its sections, read from a TOML file and the command line."""

from let_titan.config.manager import RECIPES, LetConfigManager
from let_titan.config.sections import (
    Distill,
    Export,
    Let,
    LetJobConfig,
    Model,
    Teacher,
    Training,
    compiles,
    compiles_teacher,
    distills,
)
from let_titan.data.settings import Data

__all__ = [
    "RECIPES",
    "Data",
    "Distill",
    "Export",
    "Let",
    "LetConfigManager",
    "LetJobConfig",
    "Model",
    "Teacher",
    "Training",
    "compiles",
    "compiles_teacher",
    "distills",
]
