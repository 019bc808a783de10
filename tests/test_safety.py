"""Safe by default: no shell, no pickle, no keys in what a run leaves."""

import ast
import logging
from pathlib import Path

import pytest

from let_titan.train import LetTrainer
from tests.wandb_records import wandb_records

SOURCES = sorted(path for name in ("let_titan", "scripts") for path in Path(name).rglob("*.py"))
KEY = "0123456789abcdef0123456789abcdef01234567"
UNSAFE_CALLS = {
    "eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.dump",
    "pickle.dumps", "subprocess.getoutput", "subprocess.getstatusoutput", "torch.save",
}  # fmt: skip


def calls_of(path: Path):
    tree = ast.parse(path.read_text())
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def unsafe(path: Path) -> list[str]:
    """Returns what runs a shell, or reads or writes a pickle."""
    found = []
    for name, call in calls_of(path):
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        shell = keywords.get("shell", "False") != "False"
        loads = name == "torch.load" and keywords.get("weights_only") != "True"
        remote = keywords.get("trust_remote_code") == "True"
        command = name.startswith("subprocess.") and isinstance(call.args[0], ast.JoinedStr)
        if name in UNSAFE_CALLS or shell or loads or remote or command:
            found.append(f"{path}:{call.lineno}: {name}")
    return found


def test_no_shell_no_pickle_no_code_unasked():
    assert len(SOURCES) > 40
    assert [line for path in SOURCES for line in unsafe(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "os.system(x)",
        "subprocess.run(f'ls {x}')",
        "subprocess.run(x, shell=True)",
        "torch.load(x)",
        "f(x, trust_remote_code=True)",
        "pickle.loads(x)",
    ],
)
def test_the_search_finds(line, tmp_path):
    path = tmp_path / "unsafe.py"
    path.write_text(line)
    assert len(unsafe(path)) == 1


def test_a_wandb_key_is_nowhere_in_what_a_run_leaves(lab, monkeypatch, caplog, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(lab.folder / "run"))
    for name in ("PROJECT", "RUN_NAME", "RUN_GROUP", "RUN_ID", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "never" if name == "RESUME" else "test")
    wandb = {"metrics__enable_wandb": True, "metrics__enable_tensorboard": True}
    config = lab.config({}, "--job.print_config", **wandb, checkpoint__enable=True)
    with caplog.at_level(logging.DEBUG):
        trainer = LetTrainer(config)
        trainer.train()
        trainer.run_folder.end("completed")
        trainer.close()
    assert wandb_records(lab.folder)
    files = [path for path in (lab.folder / "run").rglob("*") if path.is_file()]
    assert lab.folder / "run" / "summary.json" in files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in caplog.text + "".join(capfd.readouterr())
