"""recipes/time_series.py: models against their definitions, arms, data, statistics, tiny form."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from series.data import MOST_STEPS, SETS, encode, load, split_off
from series.findings import critical_difference, find, holm, signed_rank
from series.made_up import MADE_UP, made_up
from series.patches import PatchTransformer, mean_over_patches
from series.study import Store, Unfinished, run_all
from series.timesnet import Inception, TimesBlock, TimesNet, strongest_periods
from series.training import Arm, Training, batches, step_losses, train
from time_series import STUDY, TINY, finished, main

PROGRAM = Path(__file__).parents[1] / "recipes" / "time_series.py"
BASELINE, LET, KD = STUDY.arms


@pytest.fixture(scope="module")
def data():
    return load(MADE_UP)


def model(kind: str, data):
    torch.manual_seed(3)
    if kind == "timesnet":
        return TimesNet(*data.shape, width=8, n_blocks=2)
    return PatchTransformer(*data.shape, width=8, n_blocks=2, patch=data.patch)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# TimesNet


def test_inception_is_the_mean_of_its_convolutions():
    torch.manual_seed(0)
    inception = Inception(3, 5, n_kernels=3).double()
    grid = torch.randn(2, 3, 4, 7, dtype=torch.float64, requires_grad=True)
    one_by_one = torch.stack([conv(grid) for conv in inception.convolutions]).mean(0)
    torch.testing.assert_close(inception(grid), one_by_one)
    weights = (grid, *inception.parameters())
    found = torch.autograd.grad(inception(grid).square().sum(), weights)
    expected = torch.autograd.grad(one_by_one.square().sum(), weights)
    torch.testing.assert_close(found, expected)


def test_periods_of_sines_are_found():
    steps = torch.arange(48, dtype=torch.float64)
    series = (
        3 * torch.sin(2 * torch.pi * 4 * steps / 48) + torch.sin(2 * torch.pi * 6 * steps / 48) + 9
    )
    periods, amplitudes = strongest_periods(series[None, :, None], top_k=2)
    assert periods == [12, 8]  # the mean, frequency 0, is none
    torch.testing.assert_close(amplitudes, torch.tensor([[72.0, 24.0]], dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(n_steps=st.integers(6, 21), seed=st.integers(0, 99))
def test_times_block_equals_the_papers_loop(n_steps, seed):
    torch.manual_seed(seed)
    block = TimesBlock(4, n_kernels=2, top_k=2, dropout=0.0).double()
    series = torch.randn(3, n_steps, 4, dtype=torch.float64)
    periods, amplitudes = strongest_periods(series, 2)
    expected = series.clone()
    for row in range(3):
        for period, share in zip(periods, amplitudes[row].softmax(0), strict=True):
            rows = math.ceil(n_steps / period)
            grid = torch.zeros(1, 4, rows, period, dtype=torch.float64)
            for step in range(n_steps):
                grid[0, :, step // period, step % period] = series[row, step]
            convolved = block.convolutions(grid)[0]
            for step in range(n_steps):
                expected[row, step] += share * convolved[:, step // period, step % period]
    torch.testing.assert_close(block(series), block.norm(expected))


def test_gradients_of_a_block_by_finite_differences():
    torch.manual_seed(1)
    block = TimesBlock(2, n_kernels=2, top_k=1, dropout=0.0).double()
    series = torch.randn(1, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, series)


def test_parameter_counts(data):
    channels, steps, classes = data.shape
    width, blocks, taps = 8, 2, 1 + 9 + 25
    block = 2 * (taps * width * width + 3 * width) + 2 * width
    head = steps * width * classes + classes
    assert count(model("timesnet", data)) == 3 * channels * width + blocks * block + head


@pytest.mark.parametrize("name", STUDY.students)
def test_students_are_larger_than_their_teacher(name, data):
    teacher, student = (shape.build(data, 0) for shape in (STUDY.teacher, STUDY.students[name]))
    assert count(student) > 2 * count(teacher)


@pytest.mark.parametrize("kind", ["timesnet", "patches"])
def test_shapes_and_that_every_weight_learns(kind, data):
    classifier, batch = model(kind, data), data.train.take(torch.arange(5))
    found = classifier(batch.series, batch.mask)
    assert found.logits.shape == (5, data.n_classes)
    tokens = data.shape[1] if kind == "timesnet" else data.shape[1] // data.patch
    assert all(state.shape == (5, tokens, 8) for state in found.states)
    F.cross_entropy(found.logits, batch.labels).backward()
    trained = {n: p for n, p in classifier.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    # A bias before a batch norm does not count, and a softmax does not see one of its keys
    still = {n for n, p in trained.items() if p.grad.abs().max() < 1e-12}
    assert all("k_proj.bias" in name for name in still)


# Patches


def test_teacher_is_averaged_over_the_real_steps_of_a_patch():
    states = torch.arange(8.0).view(1, 8, 1)
    mask = torch.tensor([[True] * 3 + [False] * 5])
    means, patches = mean_over_patches(states.masked_fill(~mask[..., None], torch.nan), mask, 2)
    assert means.flatten().tolist() == [0.5, 2.0, 0.0, 0.0]
    assert patches.tolist() == [[True, True, False, False]]


# Arms


def steps_of(arm, data, s=0, kind="timesnet"):
    student, teacher = model(kind, data).eval(), model("timesnet", data).eval()
    batch = data.train.take(torch.arange(4))
    return student, teacher, batch, step_losses(student, teacher, arm, batch, TINY.training, s)


@pytest.mark.parametrize("kind", ["timesnet", "patches"])
def test_let_adds_the_papers_loss_in_values_and_gradients(kind, data):
    arm = Arm("LET", lambda_0=0.7)
    student, teacher, batch, step = steps_of(arm, data, s=1, kind=kind)  # s_stop 4
    found = student(batch.series, batch.mask)
    states = teacher(batch.series, batch.mask).states[-1].detach()
    target, valid = student.tokens(states, batch.mask)
    cosine = F.cosine_similarity(found.states[0], target, dim=-1)[valid].mean()
    expected = F.cross_entropy(found.logits, batch.labels) - 0.7 * 3 / 4 * cosine
    torch.testing.assert_close(step.loss, expected)
    torch.testing.assert_close(step.cosine, cosine.detach())
    weights = [p for p in student.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(x, weights) for x in (step.loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_kd_mixes_the_task_with_the_soft_labels(data):
    student, teacher, batch, step = steps_of(KD, data)
    ours, theirs = (m(batch.series, batch.mask).logits / KD.temperature for m in (student, teacher))
    p = theirs.softmax(-1)
    kl = (p * (p.log() - ours.log_softmax(-1))).sum(-1).mean()
    task = F.cross_entropy(ours * KD.temperature, batch.labels)
    torch.testing.assert_close(step.loss, 0.5 * task + 0.5 * KD.temperature**2 * kl)


def test_teacher_takes_no_part_after_s_stop(data):
    def refuse(*_):
        raise AssertionError("asked")

    student, batch = model("timesnet", data), data.train.take(torch.arange(4))
    assert step_losses(student, refuse, LET, batch, TINY.training, TINY.training.s_stop).loss > 0
    with pytest.raises(AssertionError, match="asked"):
        step_losses(student, refuse, LET, batch, TINY.training, TINY.training.s_stop - 1)


def test_let_without_weight_is_the_baseline_bit_for_bit(data):
    def curve(arm, teacher):
        student = STUDY.students["TimesNet"].build(data, 1)
        found = train(student, teacher, arm, data.train, data.test, TINY.training, 1e-3, 1)
        return found["curve"], [p.detach() for p in student.parameters()]

    teacher = model("timesnet", data).eval()
    (ours, weights), (theirs, others) = (
        curve(replace(LET, lambda_0=0.0), teacher),
        curve(BASELINE, None),
    )
    assert ours == theirs and all(map(torch.equal, weights, others))
    assert curve(LET, teacher)[0] != theirs


def test_a_classifier_learns_the_made_up_set(data):
    student = STUDY.teacher.build(data, 0)
    training = Training(steps=80, batch=12, evaluate_every=80)
    curve = train(student, None, BASELINE, data.train, data.test, training, 3e-3, 0)["curve"]
    assert [step for step, *_ in curve] == [0, 80]
    assert curve[-1][1] > 0.9


def test_batches_are_epochs():
    drawn = batches(7, 3, seed=0)
    first = torch.cat([next(drawn), next(drawn)])
    assert len(first.unique()) == 6
    assert len(next(batches(2, 16, seed=0))) == 2


# Data


def test_encoding_pads_masks_and_standardises_by_train_alone():
    train_split, test_split = made_up("train"), made_up("test")
    data = encode("x", train_split, test_split)
    lengths = data.train.mask.sum(1).tolist()
    assert lengths == [series.shape[1] for series in train_split[0]]
    assert data.shape[1] % data.patch == 0
    assert (data.train.series[~data.train.mask] == 0).all()
    real = data.train.series[data.train.mask]
    torch.testing.assert_close(real.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(real.std(0), torch.ones(2), atol=1e-5, rtol=0)
    shifted = [series + 100 for series in test_split[0]]
    assert torch.equal(
        encode("x", train_split, (shifted, test_split[1])).train.series, data.train.series
    )


def test_long_series_become_means_of_cells():
    series = np.arange(2.0 * (MOST_STEPS + 10))[None]
    data = encode("x", ([series, -series], np.array(["a", "b"])), ([series], np.array(["b"])))
    assert data.cell == 3
    assert data.train.mask[0].sum() == math.ceil(series.shape[1] / 3)
    first, second, third = data.train.series[0, :3, 0].tolist()
    assert second - first == pytest.approx(third - second) and second > first


def test_validation_is_a_share_of_every_class(data):
    fit, validation = split_off(data.train, 0.25, seed=0)
    assert len(fit) + len(validation) == len(data.train)
    assert validation.labels.bincount().tolist() == [1, 1, 1]
    other = split_off(data.train, 0.25, seed=1)[1]
    assert not torch.equal(validation.series, other.series)


def test_a_set_without_aeon_tells_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(ValueError, match=r"bash scripts/series_env\.sh"):
        load("GunPoint")


@pytest.mark.parametrize("name", SETS)
def test_sets_of_aeon_are_the_archives(name):
    """Run with .venv-series/bin/python -m pytest tests/test_time_series.py."""
    pytest.importorskip("aeon", reason="no aeon here: bash scripts/series_env.sh")
    known = {
        "JapaneseVowels": (270, 370, 12, 29, 9),
        "BasicMotions": (40, 40, 6, 100, 4),
        "ItalyPowerDemand": (67, 1029, 1, 24, 2),
        "GunPoint": (50, 150, 1, 150, 2),
        "ArrowHead": (36, 175, 1, 251, 3),
        "OSULeaf": (200, 242, 1, 427, 6),
        "ACSF1": (100, 100, 1, 1460, 10),
    }
    data = load(name)
    channels, steps, classes = data.shape
    assert (len(data.train), len(data.test), channels, data.longest, classes) == known[name]
    assert steps <= MOST_STEPS + data.patch
    assert data.train.series.isfinite().all() and data.test.series.isfinite().all()
    lengths = data.train.mask.sum(1)
    assert (len(lengths.unique()) > 1) == (name == "JapaneseVowels")


def test_made_up_set_has_the_loaders_form():
    datasets = pytest.importorskip("aeon.datasets", reason="no aeon: bash scripts/series_env.sh")
    for series, labels in (
        datasets.load_classification("JapaneseVowels", split="train"),
        made_up("train"),
    ):
        assert isinstance(series, list) and series[0].dtype == np.float64
        assert len({len(one) for one in series}) == 1 and len({one.shape[1] for one in series}) > 1
        assert labels.dtype.kind == "U" and labels.shape == (len(series),)


# Study and statistics


def test_a_stopped_study_goes_on(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs.jsonl")
    runs = run_all(TINY, store)
    first = [next(runs) for _ in range(9)]
    runs.close()
    again = Store(tmp_path / "runs.jsonl", trains=False)
    assert list(finished(TINY, again)) == first
    with pytest.raises(Unfinished):
        list(run_all(TINY, again))
    known = len(store.records)
    whole = list(run_all(TINY, Store(tmp_path / "runs.jsonl")))
    assert whole[:9] == first and len(whole) == 14
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == known + 5


def record(arm, seed, accuracies, name="a"):
    curve = [[10 * i, accuracy, 1.0] for i, accuracy in enumerate(accuracies)]
    of_student = {"purpose": "student", "student": "S", "arm": arm, "cpu_s": 0.02}
    return {**of_student, "set": name, "seed": seed, "curve": curve}


TEACHER = {"purpose": "teacher", "set": "a", "seed": 0, "cpu_s": 1.5, "curve": [[10, 0.7, 1.0]]}


def test_findings_pair_seeds_and_count_steps():
    study = replace(
        STUDY, sets=("a",), students={"S": STUDY.teacher}, arms=(BASELINE, LET), seeds=(0, 1)
    )
    runs = [
        record("baseline", 0, [0.0, 0.4, 0.8]),
        record("LET", 0, [0.0, 0.8, 0.9]),
        record("baseline", 1, [0.0, 0.2, 0.6]),
        record("LET", 1, [0.0, 0.6, 0.5]),
        record("LET", 2, [0.0, 0.0, 0.0]),  # has no partner
        TEACHER,
    ]
    assert find(study, runs).teachers["a"].value == pytest.approx(0.7)
    baseline, let = find(study, runs).arms["S"]
    assert let.difference.value == pytest.approx(0.0) and let.difference.n == 2
    assert baseline.steps == pytest.approx(20) and let.steps == pytest.approx(10)
    assert let.level.costs["steps"].speed_up.value == pytest.approx(2.0)
    assert let.cpu_ms == pytest.approx(1.0)
    unreached = find(study, [*runs[:3], TEACHER, record("LET", 1, [0.0, 0.5, 0.5])]).arms["S"][1]
    assert unreached.level.reached == 1 and unreached.steps == pytest.approx(15)
    assert unreached.level.costs["steps"].speed_up is None


def test_tests_over_sets_against_scipy_and_tables():
    assert signed_rank([1, 2, 3, 4, 5, 6, 7]) == pytest.approx(2 / 2**7)
    assert signed_rank([0.0, 0.0, 1e-17]) == 1.0
    assert signed_rank([1, 1, 1, -1]) == pytest.approx(2 * 5 / 2**4)  # ranks of ties are equal
    assert critical_difference(4, 10) == pytest.approx(2.569 * math.sqrt(4 * 5 / 60), rel=1e-3)
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )


def test_ranks_and_friedman_over_sets():
    study = replace(STUDY, sets=("a", "b", "c"), students={"S": STUDY.teacher})
    ends = {"baseline": (0.5, 0.6, 0.9), "LET": (0.7, 0.6, 0.8), "KD": (0.9, 0.8, 0.7)}
    runs = [
        record(arm, 0, [0.0, end], name)
        for arm, of_sets in ends.items()
        for name, end in zip("abc", of_sets, strict=True)
    ]
    over = find(study, [*runs, TEACHER]).over_sets["S"]
    assert over.n_sets == 3
    assert over.ranks == pytest.approx(
        {"baseline": (3 + 2.5 + 1) / 3, "LET": (2 + 2.5 + 2) / 3, "KD": (1 + 1 + 3) / 3}
    )
    assert over.friedman == pytest.approx(stats.friedmanchisquare(*ends.values()).pvalue)


def test_report_of_nothing_tells_the_cure(tmp_path, capsys):
    assert main(["--tiny", "--report", "--out", str(tmp_path)]) == 2
    assert "run it without --report" in capsys.readouterr().err


def test_tiny_form_runs_and_reports(tmp_path):
    command = [sys.executable, str(PROGRAM), "--tiny", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["arms"]["TimesNet"]
    assert [row["arm"] for row in rows] == ["baseline", "LET", "KD"]
    assert all(row["difference"]["n"] == 2 for row in rows)
    text = (tmp_path / "report.md").read_text()
    assert "so far" not in text and TINY.hypothesis in text
    charts = (tmp_path / "differences.png", tmp_path / "curves.png")
    assert all(chart.stat().st_size > 10_000 for chart in charts)
