"""recipes/series: TimesNet and the Transformer over patches against their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from series.patches import mean_over_patches
from series.timesnet import Inception, TimesBlock, strongest_periods
from time_series import STUDY

from tests.classifiers import DATA, model


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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


def test_parameter_counts():
    channels, steps, classes = DATA.shape
    width, blocks, taps = 8, 2, 1 + 9 + 25
    block = 2 * (taps * width * width + 3 * width) + 2 * width
    head = steps * width * classes + classes
    assert count(model("timesnet")) == 3 * channels * width + blocks * block + head


@pytest.mark.parametrize("name", STUDY.students)
def test_students_are_larger_than_their_teacher(name):
    teacher, student = (shape.build(DATA, 0) for shape in (STUDY.teacher, STUDY.students[name]))
    assert count(student) > 2 * count(teacher)


@pytest.mark.parametrize("kind", ["timesnet", "patches"])
def test_shapes_and_that_every_weight_learns(kind):
    classifier, batch = model(kind), DATA.train.take(torch.arange(5))
    found = classifier(batch.series, batch.mask)
    assert found.logits.shape == (5, DATA.n_classes)
    tokens = DATA.shape[1] if kind == "timesnet" else DATA.shape[1] // DATA.patch
    assert all(state.shape == (5, tokens, 8) for state in found.states)
    F.cross_entropy(found.logits, batch.labels).backward()
    trained = {n: p for n, p in classifier.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    # A bias before a batch norm does not count, and a softmax does not see one of its keys
    still = {n for n, p in trained.items() if p.grad.abs().max() < 1e-12}
    assert all("k_proj.bias" in name for name in still)


def test_teacher_is_averaged_over_the_real_steps_of_a_patch():
    states = torch.arange(8.0).view(1, 8, 1)
    mask = torch.tensor([[True] * 3 + [False] * 5])
    means, patches = mean_over_patches(states.masked_fill(~mask[..., None], torch.nan), mask, 2)
    assert means.flatten().tolist() == [0.5, 2.0, 0.0, 0.0]
    assert patches.tolist() == [[True, True, False, False]]
