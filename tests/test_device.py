"""On a CPU torchtitan finds a device, and torch stays as it was."""

import gc
import os
import platform
import subprocess
import weakref

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
    monkeypatch.delenv("LOCAL_RANK")
    assert module.current_device() == 0
    assert module.get_device_name() == device.cpu_name()
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


def test_garbage_and_free_pages_are_given_back():
    """torchtitan switches automatic collection off; malloc keeps what lies below a live block."""
    gc.disable()
    try:
        before = device.memory_gib()
        cycle = [torch.ones(1 << 28, dtype=torch.uint8)]
        cycle.append(cycle)
        del cycle
        assert device.memory_gib() - before == pytest.approx(0.0, abs=0.02)
        small = [torch.ones(1 << 16, dtype=torch.uint8) for _ in range(1 << 12)]
        small = [small[-1], torch.ones(1 << 10)]
        assert device.memory_gib() - before == pytest.approx(0.0, abs=0.02)
        module = torch.nn.Linear(1, 1)
        module.itself, alive = [module], weakref.ref(module)
        del module
        device.free_cached_memory()
        assert alive() is None
    finally:
        gc.enable()


def test_on_a_gpu_memory_is_what_is_reserved(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    assert device.memory_gib() == 3.0
    device.free_cached_memory()
    assert emptied == [True]


def test_a_cpus_name_is_its_model_or_its_architecture(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "Path", lambda path: file if path == "/proc/cpuinfo" else None)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert device.cpu_name() == platform.machine()
    file.write_text("processor\t: 0\nmodel\t\t: 143\nmodel name\t: A CPU: 8 cores @ 2 GHz\n")
    assert device.cpu_name() == "A CPU: 8 cores @ 2 GHz"
    file.write_text("processor\t: 0\nCPU part\t: 0xd4f\n")  # an Arm
    monkeypatch.setattr(platform, "processor", lambda: "armv9")
    assert device.cpu_name() == "armv9"


def test_the_peak_is_the_most_that_was_resident_and_none_of_what_has_ended():
    before = device.resident_bytes()
    torch.ones(1 << 28, dtype=torch.uint8)
    peak = device.peak_resident_bytes()
    assert before + 0.95 * 2**28 < peak < psutil.virtual_memory().total
    assert device.peak_resident_bytes(os.getpid()) == peak > device.resident_bytes()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert device.peak_resident_bytes(ended.pid) == 0
