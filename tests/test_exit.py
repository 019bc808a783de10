"""A mistake ends with one sentence and exit code 2, before anything is loaded or written."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from torch.distributed import DistNetworkError

from let_titan import train
from let_titan.errors import ConfigError, printing_errors
from let_titan.launch import PLACE, complete_environment, rendezvous_errors
from tests.support import Lab, write_toml
from tests.world import free_port

# name: (changes to a config that is right, arguments, what the sentence says)
MISTAKES = {
    "no such block": ({}, ["--let.k", "9"], r"let\.k = 9 must lie between 1 and the 4 blocks"),
    "no file": ({}, ["--job.config_file=none.toml"], r"'none\.toml' cannot be read \(No such file"),
    "broken file": ({}, ["--job.config_file=broken.toml"], r"cannot be read \(Expected '\]'"),
    "wrong type": ({"training__steps": "6"}, [], r"training\.steps = '6' .* must be int\."),
    "wrong type in a list": ({"let__pairs": ["last:2", 2]}, [], r"let\.pairs = .* list\[str\]\."),
    "unknown key": ({"let__lamda": 1}, [], r"let\.lamda is unknown: did you mean let\.lambda_0\?"),
    "no tokenizer": ({"model__hf_assets_path": "none"}, [], r"'none' holds no tokenizer\.json"),
    "no data": ({"training__dataset_path": "none/*.zst"}, [], r"'none/\*\.zst' matches no file"),
    "no teacher": ({"teacher__checkpoint": "./none"}, [], r"'\./none' does not exist"),
    "no hub": ({"teacher__checkpoint": "a/b"}, [], r"or a hub id that this machine can reach\."),
}

# Importing torchtitan takes seconds: one process imports it, and a fork of it makes each mistake.
DRIVER = """
import json, os, sys, time
from let_titan import train
from let_titan.train import main

train.SILENT_S = 1.0

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
VARIABLES = (*PLACE, "MASTER_ADDR", "MASTER_PORT")

for name, environment, args in json.loads(sys.argv[1]):
    begin, child = time.monotonic(), os.fork()
    if child == 0:
        for variable in VARIABLES:
            os.environ.pop(variable, None)
        os.environ.update(environment)
        for fd, stream in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}.{stream}", os.O_CREAT | os.O_WRONLY), fd)
        try:
            main(args)
        except SystemExit as stop:  # taking down the whole interpreter would take seconds, too
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(stop.code)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([name, code, time.monotonic() - begin]), flush=True)
"""


ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
SECOND = {**ALONE, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "1"}
SECOND["LOCAL_WORLD_SIZE"] = "2"  # which torchrun tells, and not every launcher
LAUNCHES = {
    "a variable alone": ({"RANK": "0"}, r"LOCAL_RANK, WORLD_SIZE must be set .* torchrun"),
    "no number": ({**ALONE, "WORLD_SIZE": "two"}, r"WORLD_SIZE = 'two' must be a number"),
    "nowhere to meet": ({**ALONE, "WORLD_SIZE": "2"}, r"MASTER_ADDR, MASTER_PORT must be set"),
    "port in use": (
        {**ALONE, "MASTER_ADDR": "127.0.0.1"},
        r"cannot meet at 127\.0\.0\.1:\d+ \(it is in use\): .* --standalone",
    ),
}


def run(command: list[str], folder, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"} | ALONE | environment,
    )


@contextmanager
def hub_out_of_reach() -> Iterator[dict[str, str]]:
    """A hub that takes connections and never answers: the slowest way to be out of reach."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="module")
def told(assets, tmp_path_factory):
    """Makes every mistake; returns {name: code, seconds, out, err} and the folder of the runs."""
    folder = tmp_path_factory.mktemp("exit")
    (folder / "broken.toml").write_text("[let\n")
    lab, cases = Lab(assets, folder), []
    for name, (changes, args, _) in MISTAKES.items():
        path = write_toml(folder / f"{name}.toml", lab.sections({}, **changes))
        # The first --job.config_file counts, and one of the mistakes brings its own
        cases.append((name, ALONE, [*args, "--job.config_file", str(path)]))
    right = ["--job.config_file", cases[0][2][-1]]
    cases.append(("unknown flag", ALONE, ["--nonsense.key", "1", *right]))
    cases.append(("not rank 0", SECOND, cases[0][2]))
    cases.append(("unknown flag, not rank 0", SECOND, cases[-2][2]))
    (lacking,) = (args for name, _, args in cases if name == "no data")
    cases.append(("another machine lacks it", SECOND, lacking))
    cases.append(("its second process", {**SECOND, "LOCAL_RANK": "1"}, lacking))
    cases.append(("no word of how many", {**SECOND, "LOCAL_RANK": "1"}, lacking))
    del cases[-1][1]["LOCAL_WORLD_SIZE"]
    cases.append(("no launcher", {}, [*right, "--job.dump_folder", "alone", "--training.steps=4"]))
    with socket.socket() as taken, hub_out_of_reach() as environment:
        taken.bind(("", 0))
        taken.listen()
        for name, (variables, _) in LAUNCHES.items():
            port = {"MASTER_PORT": str(taken.getsockname()[1])} if name == "port in use" else {}
            cases.append((name, variables | port, right))
        process = run(["-c", DRIVER, json.dumps(cases)], folder, **environment)
    assert process.returncode == 0, process.stderr
    results = {}
    for name, code, seconds in map(json.loads, process.stdout.splitlines()):
        out, err = ((folder / f"{name}.{stream}").read_text() for stream in ("out", "err"))
        results[name] = SimpleNamespace(code=code, seconds=seconds, out=out, err=err)
    return results, folder


@pytest.mark.parametrize("name", [*MISTAKES, *LAUNCHES])
def test_one_sentence_and_exit_code_two(name, told):
    (results, folder), sentence = told, {**MISTAKES, **LAUNCHES}[name][-1]
    result = results[name]
    assert result.code == 2
    assert re.fullmatch(r"let_titan: [^\n]+\n", result.err), result.err
    assert re.search(sentence, result.err), result.err
    assert "Traceback" not in result.out and "Warning" not in result.out
    assert result.seconds < 10
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", PLACE)
def test_each_number_of_a_launchers_is_one(name, monkeypatch):
    monkeypatch.setenv(name, "-1")
    with pytest.raises(ConfigError, match=f"{name} = '-1' must be a number"):
        complete_environment()


def test_why_the_processes_do_not_meet_is_said(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node-0")
    monkeypatch.setenv("MASTER_PORT", "29500")
    told = r"cannot meet at node-0:29500 \(timed out\): give"
    with pytest.raises(ConfigError, match=told), rendezvous_errors():
        raise DistNetworkError("timed out\nException raised from")


def test_without_a_launcher_a_run_is_one_process(told):
    results, folder = told
    result = results["no launcher"]
    assert result.code == 0, result.err
    assert "One process: torchrun --nproc_per_node N" in result.out + result.err
    summary = json.loads((folder / "alone" / "summary.json").read_text())
    assert summary["exit_state"] == "completed" and summary["hardware"]["world_size"] == 1


def test_an_unknown_flag_gets_tyros_words_and_exit_code_two(told):
    result = told[0]["unknown flag"]
    assert result.code == 2
    assert "Unrecognized options: --nonsense.key" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("case", ["another machine lacks it", "no word of how many"])
def test_what_one_machine_lacks_is_told_there(case, told):
    """Its files may be in order where rank 0 is, which then would say nothing."""
    result = told[0][case]
    assert result.code == 2
    line = rf"let_titan on {re.escape(socket.gethostname())}: [^\n]+matches no file[^\n]+\n"
    assert re.fullmatch(line, result.err), result.err


@pytest.mark.parametrize("name", ["not rank 0", "unknown flag, not rank 0", "its second process"])
def test_the_other_ranks_exit_in_silence(name, told):
    assert told[0][name].code == 2
    assert told[0][name].err == ""
    assert told[0][name].seconds > 1  # rank 0's to speak: torchrun ends it with the first that ends


def test_a_rank_that_has_told_it_itself_ends_at_once(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(train, "SILENT_S", 600)
    with pytest.raises(ConfigError) as met, printing_errors():
        raise ConfigError("line 3 is no JSON")
    with pytest.raises(SystemExit):
        train.refuse(met.value, 2)
    assert capsys.readouterr().err == "let_titan: line 3 is no JSON\n"


def test_as_a_module(lab):
    path = write_toml(lab.folder / "exit.toml", lab.sections({"k": 9}))
    module = ["-m", "let_titan.train", "--job.config_file", str(path)]
    process = run(module, lab.folder)
    assert process.returncode == 2
    assert (
        process.stderr == "let_titan: let.k = 9 must lie between 1 and the 4 blocks of 'debug'.\n"
    )
    assert not (lab.folder / "run").exists()


def test_under_torchrun_on_two_ranks(lab):
    path = write_toml(lab.folder / "exit.toml", lab.sections({"k": 9}))
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", str(free_port())]
    module = ["-m", "let_titan.train", "--job.config_file", str(path)]
    process = run([*launcher, *module], lab.folder)
    assert process.returncode == 1  # torchrun's own, after its ChildFailedError
    output = (process.stderr + process.stdout).replace(sys.prefix, "")
    assert output.count("let.k = 9") == 1
    assert not re.search(r'(let_titan|torchtitan)/\S+\.py", line', output)
    assert not (lab.folder / "run").exists()


def test_the_wrong_order_of_imports_is_explained(tmp_path):
    looked = "import sys; sys.modules['torchtitan.tools.utils'] = sys; import let_titan"
    process = run(["-c", looked], tmp_path)
    assert process.returncode == 1
    assert "let_titan must be imported before torchtitan" in process.stderr
