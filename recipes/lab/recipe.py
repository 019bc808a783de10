"""A question, written down before its first run: hypothesis, arms, deciding metric, seeds."""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from lab.runs import LAB, NotMade, Place, finish, is_finished, key_of, load
from let_titan.compare.files import write
from let_titan.compare.result import Comparison, compare
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
        place: the setting in which all of it is trained.
    """

    name: str
    hypothesis: str
    metric: str
    arms: Mapping[str, Keys]
    seeds: tuple[int, ...]
    baseline: Keys
    place: Place = LAB

    def settings(self) -> list[tuple[str, int, Keys]]:
        """Returns (arm, seed, keys) of every run, whole seeds first, the baseline first of all."""
        return [
            (name, seed, {**keys, "debug.seed": str(seed)})
            for seed in self.seeds
            for name, keys in [("baseline", self.baseline), *self.arms.items()]
        ]


def run_all(
    recipe: Recipe,
    place: Place,
    tell: Callable[[str], None],
    jobs: int = 1,
    end: float = math.inf,
) -> Iterator[None]:
    """Trains what is not finished, ``jobs`` runs at a time; yields after each run.

    At ``end``, of ``time.monotonic``, runs save their step and stop.
    """
    missing = {
        key_of(place, keys): (f"{arm}, seed {seed}", keys)
        for arm, seed, keys in recipe.settings()
        if not is_finished(place, keys)
    }
    begin = time.monotonic()
    pool = ThreadPoolExecutor(jobs)  # of threads: each waits for the process that trains
    try:
        runs = {
            pool.submit(finish, place, keys, end): f"{name} ({key})"
            for key, (name, keys) in missing.items()
        }
        tell(f"{len(runs)} runs to train, {jobs} at a time")
        for done, run in enumerate(as_completed(runs), 1):
            if not run.result():
                tell("The time is over: the same command goes on from here.")
                return
            left = (time.monotonic() - begin) / done * (len(runs) - done)
            tell(f"[{done}/{len(runs)}] {runs[run]}; about {left / 60:.0f} min left")
            yield
    finally:
        pool.shutdown(cancel_futures=True)


def finished(recipe: Recipe, place: Place) -> tuple[list[str], list[int]]:
    """Returns the arms and the seeds that can be reported: all runs of them are there.

    Arms that are there with every seed come first, since those decide; where there is none, the
    seeds that are there with every arm.
    """
    done = {(arm, seed) for arm, seed, keys in recipe.settings() if is_finished(place, keys)}

    def with_every_seed(arm: str) -> bool:
        return all((arm, seed) in done for seed in recipe.seeds)

    arms = [arm for arm in recipe.arms if with_every_seed(arm)]
    if arms and with_every_seed("baseline"):
        return arms, list(recipe.seeds)
    wanted = ("baseline", *recipe.arms)
    seeds = [seed for seed in recipe.seeds if all((arm, seed) in done for arm in wanted)]
    return (list(recipe.arms) if seeds else []), seeds


def report(recipe: Recipe, place: Place) -> Comparison | None:
    """Writes compare's report of what is finished; returns it, or None where there is nothing."""
    names, seeds = finished(recipe, place)
    if not names:
        return None
    arms: dict[str, list[Run]] = {}
    for arm, seed, keys in recipe.settings():
        if seed in seeds and arm in ("baseline", *names):
            arms.setdefault(arm, []).append(load(place, keys, f"{arm}-seed{seed}"))
    runs = [run for name in names for run in arms[name]]
    untimed = {id(run) for run in (*runs, *arms["baseline"])}
    comparison = compare(runs, arms["baseline"], ["hardware"], untimed)
    missing = [arm for arm in recipe.arms if arm not in names]
    to_come = f" To come: {', '.join(missing)}." if missing else ""
    note = (
        f"{recipe.hypothesis} Deciding: {recipe.metric} {seeds_in_words(recipe.seeds, seeds)} "
        f"{arms['baseline'][0].train[-1]['tokens']:,} tokens an arm.{to_come} Clocks do not count: "
        "runs are shared between recipes and were made at different times."
    )
    write(comparison, place.results / recipe.name, note)
    return comparison


def verdicts(recipe: Recipe, comparison: Comparison | None) -> list[str]:
    """Returns a sentence for each arm."""
    if comparison is None:
        return [f"No arm and no seed of {recipe.name} is whole: nothing to report."]
    return [verdict(result) for result in comparison.results]


def seeds_in_words(planned: Sequence[int], finished: Sequence[int]) -> str:
    """Says how many seeds (of the initial weights) there are, and that others are to come."""
    names = ", ".join(map(str, finished))
    if len(finished) == len(planned):
        return f"Seed{'s' if len(finished) > 1 else ''} {names} of the initial weights."
    return (
        f"{len(finished)} of {len(planned)} seeds of the initial weights so far ({names}); the "
        "others are to come, and until then nothing is decided."
    )


def main(recipe: Recipe, args: list[str] | None = None, place: Place | None = None) -> None:
    """The command line of every recipe."""
    place = place or recipe.place
    parser = argparse.ArgumentParser(description=f"{recipe.hypothesis} {recipe.metric}")
    parser.add_argument("--list", action="store_true", help="name the runs and train none")
    parser.add_argument("--report", action="store_true", help="report what is there; train none")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; each takes its share of the cores"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="then runs save their step and stop"
    )
    options = parser.parse_args(args)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: one run at a time is the least.")
    try:
        run(recipe, place, options)
    except NotMade as error:
        parser.error(str(error))


def run(recipe: Recipe, place: Place, options: argparse.Namespace) -> None:
    """Lists, trains or reports, as the command line asks."""
    end = time.monotonic() + 60 * options.minutes
    if options.list:
        for arm, seed, keys in recipe.settings():
            state = "finished" if is_finished(place, keys) else "to be trained"
            print(f"{key_of(place, keys)}  {arm}, seed {seed}: {state}")
        return
    if not options.report:
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        known = finished(recipe, place)
        for _ in run_all(recipe, place, partial(print, flush=True), options.jobs, end):
            if finished(recipe, place) != known:  # what is stopped leaves what it found
                known = finished(recipe, place)
                report(recipe, place)
    for line in verdicts(recipe, report(recipe, place)):
        print(line)
