"""docs/reproduce-the-paper.md: its hours are preflight's, its commands parse and fit together."""

import json
import re
import shlex
from pathlib import Path

import pytest

from let_titan.checks import find_mistakes
from let_titan.compare.__main__ import parse as parse_compare
from let_titan.config import LetConfigManager
from let_titan.errors import NotFoundHere
from let_titan.evaluate import __main__ as tasks
from let_titan.evaluate import perplexity
from let_titan.export.__main__ import parse as parse_export
from let_titan.preflight import examination, examine
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.memory import StepMemory
from tests.world import outside_the_world

PAGE = Path("docs/reproduce-the-paper.md")
PRICED = Path("recipes/results/preflight/results.json")
TRAIN, PAIR = "recipes/slurm/train.sbatch", "recipes/slurm/pair.sh"
MODULES = {
    "let_titan.evaluate": lambda args: tasks.settings_of(tasks.parse(args)),
    "let_titan.evaluate.perplexity": lambda args: perplexity.check(perplexity.parse(args)),
    "let_titan.compare": parse_compare,
    "let_titan.export": parse_export,
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def trained() -> list[tuple[str, list[str]]]:
    """(config file, flags) of every run that the page starts."""
    found = []
    for words in commands():
        if TRAIN in words:
            file, *flags = words[words.index(TRAIN) + 1 :]
            found.append((file, flags))
        if PAIR in words:
            file = words[-1]
            found += [(file, []), (file.replace(".toml", "_baseline.toml"), [])]
    return found


@pytest.fixture(scope="module")
def configs():
    return [LetConfigManager().parse_args(["--job.config_file", f, *more]) for f, more in trained()]


def test_hours_are_preflights_for_32_a100():
    runs = json.loads(PRICED.read_text())["runs"]
    priced = {run["config"]: run for run in runs if run["world_size"] == 32}
    cells = re.findall(r"\| `(let_\w+)` \| ([\d,]+)", PAGE.read_text())
    assert {"let_1_4b", "let_7b", "let_3b_baseline", "let_1_4b_opt"} <= {name for name, _ in cells}
    for name, hours in cells:
        assert priced[name]["gpu"].startswith("A100")
        assert hours == f"{priced[name]['gpu_hours']:,.0f}", name
    shown = {name for name, _ in cells}
    assert {Path(file).stem for file, _ in trained()} == shown


def test_hours_of_distillation_are_preflights_for_32_a100(configs, outside, monkeypatch):
    monkeypatch.setattr(examination, "measure_step", lambda *_: StepMemory(0, 0, 0, 0, 0))
    rows = re.findall(
        r"\| (RKD|SALT) \|.*`(let_\w+)` with the flags.*\| ([\d,]+) \|", PAGE.read_text()
    )
    said = {(method.lower(), name): hours for method, name, hours in rows}
    found = {}
    for (file, _), config in zip(trained(), configs, strict=True):
        if config.distill.method != "none":
            price = examine(config, 32, GPUS["a100"]).price
            found[config.distill.method, Path(file).stem] = f"{price['cost']['gpu_hours']:,.0f}"
    assert found == said and len(said) == 4


def test_every_run_is_a_sound_config_for_32_gpus(configs, outside):
    folders = [config.job.dump_folder for config in configs]
    assert len(set(folders)) == len(folders) >= 13
    for (file, _), config in zip(trained(), configs, strict=True):
        found = find_mistakes(config, 32, elsewhere=True)
        mistakes = [mistake for mistake in found if not isinstance(mistake, NotFoundHere)]
        assert mistakes == [], file


def test_every_other_command_parses_and_reads_what_was_trained(configs):
    runs = {config.job.dump_folder: config for config in configs}
    seen = set()
    for words in commands():
        if words[:2] != ["python", "-m"]:
            assert TRAIN in words or PAIR in words, words
            continue
        module, args = words[2], words[3:]
        MODULES[module](args)
        seen.add(module)
        given = [a for a in args[: first_flag(args)] if a.startswith("outputs/")]
        if module == "let_titan.export":
            given = given[:1]
        for path in given:
            run, _, step = path.partition("/checkpoint/step-")
            assert run in runs, path
            if step.isdecimal():
                config = runs[run]
                assert int(step) % config.checkpoint.interval == 0
                assert int(step) <= 0.67 * config.training.steps < int(step) + 477
    assert seen == set(MODULES)


def first_flag(args: list[str]) -> int:
    return next((i for i, a in enumerate(args) if a.startswith("--") and a != "--baseline"), None)


@pytest.fixture
def outside():
    with outside_the_world():
        yield
