"""Fixtures: one gloo world of one process, a tiny tokenizer, corpus and teachers."""

import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.resumed import train
from tests.short import S_STOP, SAVED, make_short_run
from tests.support import Lab, sentences
from tests.teachers import CONFIGS
from tests.world import BACKEND, do_not_linger, free_port, outside_the_world, set_rank

VOCAB = 320
TEXTS = [
    f"Document {i}: the quick brown fox number {i * i} jumps over {i % 7} lazy dogs. " * (1 + i % 5)
    for i in range(120)
]

# A machine that others use, too, is slower than hypothesis expects now and then.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_addoption(parser):
    parser.addoption(
        "--write-docs", action="store_true", help="write what is measured into docs/layouts.md"
    )


@pytest.fixture(scope="session", autouse=True)
def single_process_world():
    torch.set_num_threads(1)
    gc.freeze()  # a CPU's memory figures collect at every log step: spare them what imports left
    do_not_linger()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not torch.cuda.is_available():  # beside GPUs that torch cannot use, a run is refused
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    set_rank(0, 1, free_port())
    dist.init_process_group(BACKEND)
    yield
    dist.destroy_process_group()
    gc.unfreeze()


def make_tokenizer(folder: Path, size: int = VOCAB, bos: str | None = "<s>") -> None:
    """Trains a byte-level BPE of ``size`` ids with BOS, if given, and EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*([bos] if bos else []), "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": bos, "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_jsonl(path: Path, texts: list[str]) -> None:
    rows = ({"text": text, "meta": {"pile_set_name": "Test"}} for text in texts)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def assets(tmp_path_factory) -> Path:
    """A folder with tokenizer/, teacher/ (a Llama of width 48), train.jsonl, validation.jsonl."""
    folder = tmp_path_factory.mktemp("assets")
    make_tokenizer(folder / "tokenizer")
    write_jsonl(folder / "train.jsonl", TEXTS[:100])
    write_jsonl(folder / "validation.jsonl", TEXTS[100:])
    make_teacher(folder / "teacher", VOCAB)
    return folder


def make_teacher(folder: Path, vocabulary: int, context: int = 128) -> None:
    """Writes a Llama of width 48."""
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def teachers(tmp_path_factory) -> Path:
    """A folder with one random model per architecture of ``CONFIGS``, saved by transformers."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, config in CONFIGS.items():
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def readers(tmp_path_factory) -> Path:
    """Folders of teachers: "equal" has the student's tokenizer, "other" one of 420 ids, no BOS.

    "short" reads no row to its end, and "uneven" not every row.
    """
    folder = tmp_path_factory.mktemp("readers")
    make_tokenizer(folder / "equal")
    make_teacher(folder / "equal", VOCAB)
    make_tokenizer(folder / "other", 420, bos=None)
    make_teacher(folder / "other", 420)
    make_tokenizer(folder / "short", 300)
    make_teacher(folder / "short", 300, context=48)
    make_tokenizer(folder / "uneven", 420)
    make_teacher(folder / "uneven", 420, context=58)
    return folder


@pytest.fixture(scope="session")
def finished(assets, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A LET run that ended, with a full checkpoint of every step: its folder, what ``train`` gave.

    Tests copy what they change.
    """
    lab = Lab(assets, tmp_path_factory.mktemp("finished"))
    found = train(lab)
    return lab.folder / "run", found


@pytest.fixture
def no_world():
    with outside_the_world():
        yield


@pytest.fixture
def lab(assets: Path, tmp_path: Path) -> Lab:
    return Lab(assets, tmp_path)


@pytest.fixture(scope="session")
def short_run(assets: Path, tmp_path_factory) -> Path:
    return make_short_run(Lab(assets, tmp_path_factory.mktemp("short")))


@pytest.fixture
def resumed(lab: Lab, short_run: Path) -> Callable[..., list[str]]:
    """Returns the mistakes of a config that goes on from step 1 of a copy of ``short_run``."""
    shutil.copytree(short_run, lab.folder / "run")

    def mistakes(*args: str, **changes: Any) -> list[str]:
        settings = {**SAVED, "checkpoint__load_step": 1, **changes}
        return sentences(lab.parsed({"s_stop": S_STOP}, *args, **settings))

    return mistakes
