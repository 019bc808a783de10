"""What is started often, by hand and over ssh, starts without torch."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torchtitan.components.tokenizer import HuggingFaceTokenizer

from let_titan.tokenizer.build import fingerprint, load_tokenizer
from tests.conftest import TEXTS
from tests.handmade import BASELINE, BETTER, write_run

DRIVER = """
import sys

from let_titan.compare.__main__ import main as compare
from let_titan.watch import main as watch

SLOW = {"torch", "torchtitan", "transformers", "scipy", "matplotlib", "wandb"}
let, baseline, out = sys.argv[1:]
assert watch([let, baseline, "--once"]) == 0
assert compare(["nowhere", "--baseline", baseline, "--out", out]) == 2
assert not SLOW & set(sys.modules), SLOW & set(sys.modules)
assert compare([let, "--baseline", baseline, "--out", out]) == 0
import let_titan.compare.publish
assert not {"torch", "torchtitan"} & set(sys.modules)
"""


def test_watching_and_comparing_import_no_torch(tmp_path):
    let, baseline = (
        write_run(tmp_path / name, name == "let", losses)
        for name, losses in (("let", BETTER), ("baseline", BASELINE))
    )
    process = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, (let, baseline, tmp_path / "out"))],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "40 of 40" in process.stdout and "0.200 nats per token lower" in process.stdout
    assert (tmp_path / "out" / "report.html").exists()


TOKENIZE = """
import re, sys
from pathlib import Path
from let_titan.data import tokenize

def peak_mb():  # getrusage's would be that of the process which started this one
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) * 1024 / 1e6

folder, tokenizer = sys.argv[1:]
assert tokenize.main([f"{folder}/text.jsonl", "--tokenizer", tokenizer, "--out", folder]) == 0
print("peak", peak_mb())
assert not {"torch", "torchtitan", "transformers", "datasets"} & set(sys.modules)
"""


def test_tokenizing_imports_no_torch_and_stays_below_a_ceiling(assets, tmp_path):
    """8 MB of text; 500 MB are allowed for 1 GB of it, and imports are 90 of them."""
    document = json.dumps({"text": " ".join(TEXTS) * 20}) + "\n"
    (tmp_path / "text.jsonl").write_text(document * (8_000_000 // len(document)))
    process = subprocess.run(
        [sys.executable, "-c", TOKENIZE, str(tmp_path), str(assets / "tokenizer")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    [peak] = (float(line.split()[1]) for line in process.stdout.splitlines() if "peak" in line)
    assert peak < 300


HOLES = """
import numpy as np, psutil, sys
from let_titan.heap import give_back_free_pages, give_back_large_blocks

def left_behind(size):
    np.ones(size, dtype=np.uint8)  # when it is freed glibc raises its threshold to its size
    process, blocks, between = psutil.Process(), [], []
    before = process.memory_info().rss
    for _ in range(200 * 2**20 // size):
        blocks.append(np.ones(size, dtype=np.uint8))
        between.append(np.ones(2**12, dtype=np.uint8))
    del blocks
    if sys.argv[1] == "given back":
        give_back_free_pages()
    return (process.memory_info().rss - before) / 2**20

if sys.argv[1] == "given back":
    give_back_large_blocks()
print(left_behind(int(sys.argv[2])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's heap that is told")
@pytest.mark.parametrize("size", [2**20, 2**16])  # mapped by itself, or a piece of the heap
def test_memory_is_given_back(size):
    def left_behind(how):
        command = [sys.executable, "-c", HOLES, how, str(size)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert left_behind("as glibc does") > 100  # MiB of 200
    assert left_behind("given back") < 30


LEAN = """
import sys
from let_titan.tokenizer.encoder import load_encoder

texts = sys.stdin.read().split("\\0")
encoder = load_encoder(sys.argv[1])
assert "torch" not in sys.modules and "torchtitan" not in sys.modules
import json
print(json.dumps([encoder.bos_id, encoder.eos_id, encoder.vocab_size, encoder.fingerprint]))
print(json.dumps([ids.tolist() for ids in encoder.documents(True, True)(texts)]))
"""


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json", "added_tokens_decoder"])
def test_the_lean_tokenizer_is_torchtitans(form, assets, tmp_path):
    """Ids, special ids, size and fingerprint of the trainer's HuggingFaceTokenizer."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(assets / "tokenizer", folder)
    words = json.loads((folder / "tokenizer.json").read_text())
    if form == "vocab.json":
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(words["model"]["vocab"]))
        merges = (" ".join(m) if isinstance(m, list) else m for m in words["model"]["merges"])
        (folder / "merges.txt").write_text("\n".join(merges))
    if form == "added_tokens_decoder":
        config = json.loads((folder / "tokenizer_config.json").read_text())
        added = {"content": "<|extra|>", "lstrip": True, "special": True}
        config["added_tokens_decoder"] = {str(len(words["model"]["vocab"])): added}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    texts = [*TEXTS, "", "a <|extra|> b", "é\u200d中文 \ud7ff", "x" * 5000]
    trainers = load_tokenizer(str(folder))
    process = subprocess.run(
        [sys.executable, "-c", LEAN, str(folder)],
        cwd=Path(__file__).parents[1],
        input="\0".join(texts),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    facts, ids = (json.loads(line) for line in process.stdout.splitlines()[-2:])
    assert type(trainers) is HuggingFaceTokenizer
    size = trainers.get_vocab_size()
    assert facts == [trainers.bos_id, trainers.eos_id, size, fingerprint(trainers)]
    assert ids == [trainers.encode(text, add_bos=True, add_eos=True) for text in texts]
