"""On a CPU torchtitan finds a device, and torch stays as it was."""

import os
import subprocess

import psutil
import pytest
import torch
import torch._utils
from torchtitan.tools import utils

from let_titan import device

pytestmark = pytest.mark.skipif(device.HAS_ACCELERATOR, reason="what is tested is for CPUs")


def test_torchtitan_sees_the_cpu_and_torch_is_unpatched():
    assert utils.device_type == "cpu"
    assert isinstance(utils.device_module, device.CpuModule)
    assert torch._utils._get_available_device_type() is None
    assert torch._utils._get_device_module("cpu") is torch.cpu


def test_the_proxy_has_what_torchtitan_calls(monkeypatch):
    module = utils.device_module
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert module.current_device() == 3
    assert module.get_device_name()
    assert module.get_device_properties().total_memory == psutil.virtual_memory().total
    assert module.is_available is torch.cpu.is_available
    stats = module.memory_stats()
    assert stats["active_bytes.all.peak"] == stats["reserved_bytes.all.peak"]


def test_memory_is_what_is_resident_now():
    before = device.memory_gib()
    block = torch.ones(1 << 28, dtype=torch.uint8)
    assert device.memory_gib() - before == pytest.approx(0.25, abs=0.02)
    del block
    assert device.memory_gib() - before == pytest.approx(0.0, abs=0.02)


def test_the_peak_is_the_most_that_was_resident_and_none_of_what_has_ended():
    before = device.resident_bytes()
    torch.ones(1 << 28, dtype=torch.uint8)
    peak = device.peak_resident_bytes()
    assert before + 0.95 * 2**28 < peak < psutil.virtual_memory().total
    assert device.peak_resident_bytes(os.getpid()) == peak > device.resident_bytes()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert device.peak_resident_bytes(ended.pid) == 0
