"""A made-up set in the form in which aeon's loader gives one, for tests and ``--tiny``."""

import numpy as np

MADE_UP = "MadeUp"


def made_up(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns three classes of sines of one frequency each, two channels, 16 to 24 steps, noisy.

    Args:
        split: "train" (12 series) or "test" (24).
    """
    generator = np.random.default_rng(len(split))
    labels = np.array(["one", "three", "two"] * (4 if split == "train" else 8))
    series = []
    for label in labels:
        steps = np.arange(generator.integers(16, 25))
        turns = 2 * np.pi * {"one": 1, "two": 2, "three": 3}[label] * steps / 16
        clean = np.stack((np.sin(turns), np.cos(turns)))
        series.append(clean + generator.normal(0, 0.3, clean.shape))
    return series, labels
