"""[training] and [validation]: data sets that can be opened, and how much of them is read."""

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig
from let_titan.data import check_dataset
from let_titan.errors import ConfigError


def data_mistakes(config: LetJobConfig) -> Mistakes:
    training, validation, data = config.training, config.validation, config.data
    yield from raised_by(check_dataset, training.dataset, training.dataset_path, "training", data)
    if not validation.enable:
        return
    dataset, path = validation.dataset, validation.dataset_path
    yield from raised_by(check_dataset, dataset, path, "validation", data)
    if validation.seq_len > training.seq_len:
        yield ConfigError(
            f"validation.seq_len = {validation.seq_len} must not be longer than "
            f"training.seq_len = {training.seq_len}, for which the student has positions."
        )
    if validation.steps < 1:
        yield ConfigError(
            f"validation.steps = {validation.steps} must be at least 1: without a number "
            "ranks with different shares of the data would wait for each other forever."
        )
