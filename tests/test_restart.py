"""torchelastic: a killed worker comes back with all others, and the run goes on where it stood."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support import Lab, write_toml
from tests.world import free_port

STEPS, INTERVAL = 120, 20


# Without it restarted workers find dead ones' addresses in the agents' store (torch 2.13).
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def agent(lab: Lab, config, port: int, node: int) -> subprocess.Popen[bytes]:
    """Starts one "node" of two processes."""
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "2"]
    launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}"]
    launcher += ["--rdzv_id", "restart", "--max_restarts", "1", "--local_addr", "127.0.0.1"]
    module = ["-m", "let_titan.train", "--job.config_file", str(config)]
    world = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {key: value for key, value in os.environ.items() if key not in world}
    with (lab.folder / f"node{node}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *launcher, *module],
            env={**environment, **OWN_STORE, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends an agent and the workers it would leave behind."""
    if process.poll() is None:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for worker in workers:
            worker.kill()


def wait_for(condition, agents, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        assert all(process.poll() is None for process in agents), "an agent has gone"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_worker_comes_back_and_the_run_goes_on(lab):
    changes = {
        "checkpoint__enable": True,
        "checkpoint__interval": INTERVAL,
        "training__steps": STEPS,
        "training__local_batch_size": 2,
    }
    config = write_toml(lab.folder / "restart.toml", lab.sections({"s_stop": 60}, **changes))
    port = free_port()
    agents = [agent(lab, config, port, node) for node in range(2)]
    run = lab.folder / "run"
    try:
        wait_for((run / f"checkpoint/step-{INTERVAL}/.metadata").exists, agents)
        victim = psutil.Process(agents[1].pid).children()[0]
        victim.send_signal(signal.SIGKILL)
        assert [process.wait(240) for process in agents] == [0, 0]
    finally:
        for process in agents:
            end(process)
    logs = (lab.folder / "node0.log").read_text() + (lab.folder / "node1.log").read_text()
    assert "Loading the checkpoint from" in logs
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert json.loads((run / "summary.json").read_text())["exit_state"] == "completed"
