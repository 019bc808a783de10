"""The shipped configs: each preflights on 8 and on 32 GPUs, and its header says what comes out."""

import json
import re
from pathlib import Path

import pytest

import let_titan.preflight.examination as examination
from let_titan.config import LetConfigManager
from let_titan.preflight.memory import StepMemory
from tests.support import outside_the_world

SHIPPED = Path(__file__).parent.parent / "train_configs"
PAPER = sorted(SHIPPED.glob("let_*.toml"))
PRICED = SHIPPED.parent / "recipes" / "results" / "preflight"


@pytest.fixture(autouse=True)
def no_world(monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)
    with outside_the_world():
        yield


def parse(path: Path):
    return LetConfigManager().parse_args(["--job.config_file", str(path)])


def examine(path: Path, world_size: int):
    config = parse(path)
    return examination.examine(config, world_size, examination.choose_gpu(config, None))


def header(path: Path) -> str:
    lines = path.read_text().partition("\n\n[")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_preflights_on_8_and_32_gpus(path, monkeypatch):
    """All but the activations, which take seconds a config; the next test is about them."""
    monkeypatch.setattr(examination, "measure_step", lambda *_: StepMemory(1, 1, 1, 1, 1))
    reports = {n: examine(path, n) for n in (8, 32)}
    assert all(report.findings.mistakes == [] for report in reports.values())
    batches = {n: report.price["batch"] for n, report in reports.items()}
    for n, batch in batches.items():
        rows = n * batch["local_batch_size"] * batch["accumulation"]
        assert batch["tokens_per_step"] == rows * batch["seq_len"]
    if path not in PAPER:
        return
    assert batches[8]["tokens_per_step"] == batches[32]["tokens_per_step"] == 1024 * 2048
    assert batches[8]["tokens"] == pytest.approx(20e9, rel=1e-3)
    hours = re.search(r"not measured: ([\d,]+) GPU-hours", header(path))
    assert hours is not None
    for report in reports.values():
        assert hours[1] == f"{report.price['cost']['gpu_hours']:,.0f}"
    let = reports[8].price["let"]
    assert (let is None) == path.stem.endswith("_baseline")
    config = parse(path)
    assert let is None or let["s_stop"] % config.checkpoint.interval == 0
    assert not config.checkpoint.last_save_model_only


@pytest.mark.parametrize("name", ["let_1_4b", "let_7b"])
def test_fits_as_its_header_says(name):
    path = SHIPPED / f"{name}.toml"
    report = examine(path, 8)
    memory = report.price["memory_bytes_per_gpu"]
    told = re.search(r"on 8 GPUs (\d+) GiB on each", header(path))
    assert told is not None
    assert int(told[1]) == round(memory["total"] / 2**30)
    assert memory["total"] < 0.65 * memory["of"]


REASONS = ("batch", "local batch", "lr", "init_scheme", "AC", "compile", "checkpoint", "validation")


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_header_gives_its_reasons(path):
    """Hardware, tokens, steps; what is the paper's and what ours; why each setting is as it is."""
    config, told = parse(path), header(path)
    assert re.search(r"Hardware: 32 x [AH]100 80 GB .* or 8 of them", told)
    assert f"{config.training.steps:,} steps of 2,097,152 tokens are 20.01B tokens" in told
    assert "From the paper:" in told and "those are ours, none of them tuned" in told
    reasons = told.partition("those are ours")[2]
    for word in REASONS:
        assert re.search(rf"- {re.escape(word)}\b[^-]*:|- {re.escape(word)} \S+", reasons), word
    assert f"lr {config.optimizer.lr:.0e}".replace("e-0", "e-") in reasons
    assert f"Warm-up {config.lr_scheduler.warmup_steps} steps" in reasons
    assert f"every {config.checkpoint.interval} steps" in reasons
    assert f"every {config.validation.freq} steps" in reasons
    lines = config.training.steps // config.metrics.log_freq
    assert f"the log every {config.metrics.log_freq}: {lines} lines a run" in reasons
    if config.let.enable:
        assert f"- k = {config.let.k} of " in reasons
        assert f"s_stop = {config.let.s_stop:,} (15 %)" in reasons


def test_every_shipped_config_was_priced_and_fits():
    """recipes/preflight_all.py ran preflight whole, activations and all, on 8 and on 32 GPUs."""
    runs = json.loads((PRICED / "results.json").read_text())["runs"]
    wanted = {(path.stem, n) for path in SHIPPED.glob("*.toml") for n in (8, 32)}
    assert {(run["config"], run["world_size"]) for run in runs} == wanted
    for run in runs:
        memory = run["memory_bytes_per_gpu"]
        assert run["mistakes"] == [] and memory["total"] < 0.65 * memory["of"]
        told = re.search(r"on 8 GPUs (\d+) GiB on each", header(SHIPPED / f"{run['config']}.toml"))
        if told is not None and run["world_size"] == 8:
            assert int(told[1]) == round(memory["total"] / 2**30), run["config"]


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_header_names_this_file_and_its_twin(path):
    twin = f"{path.stem}_baseline".removesuffix("_baseline_baseline")
    assert (SHIPPED / f"{twin}.toml").exists()
    commands = re.findall(r"--job\.config_file (\S+)", header(path))
    assert commands == [f"train_configs/{path.name}"] * 2
    assert f"{twin}.toml" in header(path)
