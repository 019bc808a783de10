"""A question, written down before its first run: hypothesis, arms, deciding metric, seeds."""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.runs import Place, finish, is_finished, key_of, load
from let_titan.compare.files import write
from let_titan.compare.result import compare
from let_titan.compare.text import verdict
from let_titan.runs import Run

Keys = Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """One question to the lab.

    Attributes:
        name: of the folder under recipes/results.
        hypothesis: what is expected, so that the runs can refute it.
        metric: what decides, and how.
        arms: {name: config keys} that are compared with ``baseline``; all on the lab's student.
        seeds: of debug.seed (initial weights), the same for every arm; the data's order is one.
        baseline: the config keys of what the arms are compared with.
    """

    name: str
    hypothesis: str
    metric: str
    arms: Mapping[str, Keys]
    seeds: tuple[int, ...]
    baseline: Keys

    def settings(self) -> list[tuple[str, int, Keys]]:
        """Returns (arm, seed, keys) of every run, whole seeds first, the baseline first of all."""
        return [
            (name, seed, {**keys, "debug.seed": str(seed)})
            for seed in self.seeds
            for name, keys in [("baseline", self.baseline), *self.arms.items()]
        ]


def run_all(recipe: Recipe, place: Place, tell: Callable[[str], None]) -> dict[str, list[Run]]:
    """Trains what is not finished; returns {arm: its runs in the order of the seeds}."""
    settings = [(arm, seed, keys, key_of(place, keys)) for arm, seed, keys in recipe.settings()]
    waiting = [key for *_, key in settings if not is_finished(place, key)]
    begin, done = time.monotonic(), 0
    arms: dict[str, list[Run]] = {}
    for arm, seed, keys, key in settings:
        if not is_finished(place, key):
            tell(f"[{done + 1}/{len(waiting)}] {arm}, seed {seed} ({key})")
            finish(place, key, keys)
            done += 1
            left = (time.monotonic() - begin) / done * (len(waiting) - done)
            tell(f"[{done}/{len(waiting)}] finished; about {left / 60:.0f} min left")
        arms.setdefault(arm, []).append(load(place, key, f"{arm}-seed{seed}"))
    return arms


def report(recipe: Recipe, arms: Mapping[str, list[Run]], folder: Path) -> list[str]:
    """Writes compare's report of all arms; returns a verdict for each."""
    runs = [run for name in recipe.arms for run in arms[name]]
    comparison = compare(runs, arms["baseline"], ["hardware"], {id(r) for r in runs})
    seeds = ", ".join(map(str, recipe.seeds))
    note = (
        f"{recipe.hypothesis} Deciding: {recipe.metric} Seeds {seeds} of the initial weights; "
        f"{arms['baseline'][0].train[-1]['tokens']:,} tokens an arm. Clocks do not count: runs "
        "are shared between recipes and were made at different times."
    )
    write(comparison, folder, note)
    return [verdict(result) for result in comparison.results]


def main(recipe: Recipe, args: list[str] | None = None, place: Place | None = None) -> None:
    """The command line of every recipe."""
    place = place or Place()
    parser = argparse.ArgumentParser(description=f"{recipe.hypothesis} {recipe.metric}")
    parser.add_argument("--list", action="store_true", help="name the runs and train none")
    if parser.parse_args(args).list:
        for arm, seed, keys in recipe.settings():
            key = key_of(place, keys)
            state = "finished" if is_finished(place, key) else "to be trained"
            print(f"{key}  {arm}, seed {seed}: {state}")
        return
    arms = run_all(recipe, place, lambda line: print(line, flush=True))
    for line in report(recipe, arms, place.results / recipe.name):
        print(line)
