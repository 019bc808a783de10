"""What the lab's whole runs say: how each value of a setting ended, and what seeds do."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.recipe import Recipe
from lab.runs import Place, is_finished, key_of, load
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """What the seed alone does to the difference of two runs that share it.

    Attributes:
        sd: standard deviation in nats per token, pooled over arms.
        df: degrees of freedom behind it; arms share their baselines, so it flatters a little.
    """

    sd: float
    df: int

    def of_two(self, seeds: int) -> float:
        """Returns how far apart two arms must end, means over ``seeds``, to be told apart."""
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.df)) * self.sd / math.sqrt(seeds)

    def of_all(self, arms: int, seeds: int) -> float:
        """Returns how far apart best and worst of equal ``arms`` may lie (Tukey's range)."""
        q = float(stats.studentized_range.ppf(CONFIDENCE, arms, self.df))
        return q * self.sd / math.sqrt(2 * seeds)


@dataclass(frozen=True)
class Ends:
    """How the runs of one recipe ended.

    Attributes:
        differences: {value of the setting: validation loss at the last step less the baseline's,
            mean over ``seeds``}, of the arms that are there with all of ``seeds``.
        seeds: how many.
        missing: arms that are not there yet.
    """

    differences: Mapping[float, float]
    seeds: int
    missing: tuple[str, ...]


def differences_of(recipe: Recipe, place: Place) -> dict[str, dict[int, float]]:
    """Returns {arm: {seed: last validation loss less the baseline's}} of what is finished."""
    last = {
        (arm, seed): load(place, keys, arm).validation[-1]["val_loss"]
        for arm, seed, keys in recipe.settings()
        if is_finished(place, keys)
    }
    found: dict[str, dict[int, float]] = {arm: {} for arm in recipe.arms}
    for (arm, seed), loss in last.items():
        if arm != "baseline" and ("baseline", seed) in last:
            found[arm][seed] = loss - last["baseline", seed]
    return found


def ends_of(recipe: Recipe, place: Place) -> Ends:
    """Returns how ``recipe``'s arms ended, over the seeds that most of its arms have."""
    found = {arm: by_seed for arm, by_seed in differences_of(recipe, place).items() if by_seed}
    shared = set.intersection(*map(set, found.values())) if found else set()
    return Ends(
        {value_of(arm): statistics.fmean(by[s] for s in shared) for arm, by in found.items()},
        len(shared),
        tuple(arm for arm in recipe.arms if arm not in found),
    )


def value_of(arm: str) -> float:
    """Returns the setting that an arm's name ends with: "block 3" is 3."""
    return float(arm.split()[-1])


def noise_of(recipes: Iterable[Recipe], place: Place) -> Noise:
    """Pools over all arms that are there with several seeds, each run once.

    Raises:
        ValueError: there is none.
    """
    arms = {}
    for recipe in recipes:
        for name, by_seed in differences_of(recipe, place).items():
            if len(by_seed) > 1:
                arms[key_of(place, recipe.arms[name])] = list(by_seed.values())
    if not arms:
        raise ValueError("No arm has two seeds yet: train recipes/compare_methods.py first.")
    df = sum(len(values) - 1 for values in arms.values())
    squares = sum((len(values) - 1) * statistics.variance(values) for values in arms.values())
    return Noise(math.sqrt(squares / df), df)
