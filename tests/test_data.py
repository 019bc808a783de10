"""The pile data set: the same tokens whatever the packing, each document once, exact resume."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from let_titan.build_data import build_dataloader, register_pile
from let_titan.data.files import data_files, data_fingerprint, file_digests
from let_titan.errors import ConfigError
from let_titan.tokenizer.build import load_tokenizer, token_bytes
from let_titan.train import LetTrainer, run

JARGON = "assets/jargon/{}.jsonl.zst"


def loader(lab, pattern, rank=0, ranks=1, infinite=True):
    register_pile()
    config = lab.config(None, training__dataset_path=str(pattern), training__local_batch_size=2)
    tokenizer = load_tokenizer(config.model.hf_assets_path)
    return build_dataloader(ranks, rank, tokenizer, config, infinite=infinite)


def rows(batches):
    return [row.tolist() for _, labels in batches for row in labels]


def test_packed_and_plain_files_read_the_same(lab):
    lines = (lab.assets / "train.jsonl").read_bytes().splitlines(keepends=True)
    for name, part in (("a", lines[:50]), ("b", lines[50:])):
        packed = zstandard.ZstdCompressor().compress(b"".join(part))
        (lab.folder / f"{name}.jsonl.zst").write_bytes(packed)
    plain = rows(itertools.islice(loader(lab, lab.assets / "train.jsonl"), 40))
    assert rows(itertools.islice(loader(lab, lab.folder / "*.jsonl.zst"), 40)) == plain
    both = f"{lab.folder}/a.jsonl.zst, {lab.folder}/b.jsonl.zst"
    assert rows(itertools.islice(loader(lab, both), 40)) == plain


def test_resume_in_mid_document_and_beyond_the_epoch(lab):
    per_epoch = len(list(loader(lab, lab.assets / "train.jsonl", infinite=False)))
    for stop in (3, per_epoch + 2):
        first = loader(lab, lab.assets / "train.jsonl")
        iterator = iter(first)
        for _ in range(stop):
            next(iterator)
        state = first.state_dict()
        wanted = rows(itertools.islice(iterator, 5))
        second = loader(lab, lab.assets / "train.jsonl")
        second.load_state_dict(state)
        assert rows(itertools.islice(second, 5)) == wanted


@pytest.mark.parametrize("pattern", ["none/*.zst", "tests", "", None, " , "])
def test_a_pattern_without_files_is_named(pattern):
    with pytest.raises(ConfigError) as error:
        data_files(pattern)
    assert f"{pattern!r} matches no file" in str(error.value)


def test_the_fingerprint_follows_the_data(lab):
    path = lab.folder / "x.jsonl"
    path.write_text('{"text": "a"}\n')
    before = data_fingerprint("pile", str(path))
    assert data_fingerprint("pile", str(path)) == before
    path.write_text('{"text": "ab"}\n')
    assert data_fingerprint("pile", str(path)) != before


def test_a_file_is_read_once_however_it_is_spelled(tmp_path, monkeypatch):
    """Its folder may be a link; a link to the file itself is another file, as it was."""
    (tmp_path / "d").mkdir()
    for name in ("top.jsonl", "d/top.jsonl", "d/x.jsonl"):
        (tmp_path / name).write_text(name)
    (tmp_path / "linked").symlink_to("d")
    (tmp_path / "again.jsonl").symlink_to("top.jsonl")
    monkeypatch.chdir(tmp_path)
    spelled = f"top.jsonl,./top.jsonl,{tmp_path}/*.jsonl,d/../d/*,linked/*"
    found = data_files(spelled)
    assert sorted(Path(file.path).resolve().name for file in found) == [
        *["top.jsonl"] * 3,
        "x.jsonl",
    ]
    assert len({Path(file.path).resolve() for file in found}) == 3
    assert [file.path for file in data_files("*.jsonl")] == ["again.jsonl", "top.jsonl"]


def test_files_of_the_same_name_are_told_apart_in_what_is_recorded(tmp_path):
    """Others are recorded by their names alone, wherever they are."""
    for name in ("c/a/x.jsonl", "c/b/d/x.jsonl", "c/b/y.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    recorded = data_fingerprint("pile", f"{tmp_path}/c/**/*.jsonl")
    assert recorded["files"] == {"a/x.jsonl": 11, "b/d/x.jsonl": 13, "b/y.jsonl": 11}
    assert len(set(file_digests(f"{tmp_path}/c/**/*.jsonl").values())) == 3
    some = data_fingerprint("pile", f"{tmp_path}/c/*/*.jsonl")
    assert some["files"] == {"x.jsonl": 11, "y.jsonl": 11}


def test_the_shipped_sample_is_in_the_piles_format_and_parted():
    texts = {}
    for part in ("train", "validation"):
        with zstandard.open(JARGON.format(part), "rt", encoding="utf-8") as file:
            documents = [json.loads(line) for line in file]
        assert all(d.keys() == {"text", "meta"} for d in documents)
        assert {d["meta"]["pile_set_name"] for d in documents} == {"Jargon File"}
        texts[part] = {d["text"] for d in documents}
        assert len(texts[part]) == len(documents)
    assert texts["train"].isdisjoint(texts["validation"])
    assert 1.4e6 < sum(map(len, texts["train"])) < 1.7e6


@settings(deadline=None, max_examples=30)
@given(text=st.text(max_size=60))
@pytest.mark.parametrize("folder", ["tiny", "assets/teachers/smollm2-135m"])
def test_token_bytes_add_up_to_the_text(folder, text, assets):
    tokenizer = load_tokenizer(str(assets / "tokenizer") if folder == "tiny" else folder)
    added = tokenizer.tokenizer.get_added_tokens_decoder().values()
    assume(not any(token.content in text for token in added))
    ids = tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
    assume(tokenizer.decode(ids) == text)  # SmolLM2's vocabulary lacks a few bytes of rare planes
    assert token_bytes(tokenizer)[ids].sum() == len(text.encode())


def test_the_summary_counts_what_was_skipped(lab, monkeypatch):
    path = lab.folder / "x.jsonl"
    path.write_text("{}\n{\n{}\n" + (lab.assets / "train.jsonl").read_text())
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    run(lab.config(None, training__dataset_path=str(path), training__steps=2))
    summary = json.loads((lab.folder / "run" / "summary.json").read_text())
    assert summary["data"]["skipped"] == {"bad JSON": 1, 'no "text"': 2}
    assert summary["special_tokens"]["add_bos"] is True
    changes = {"training__dataset_path": str(path), "data__bad_lines": "stop"}
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 1: no \"text\""):
        run(lab.config(None, **changes))


@pytest.mark.parametrize(("rank", "workers", "told"), [(0, 0, False), (1, 0, True), (1, 2, True)])
def test_a_bad_line_is_told_by_the_rank_that_reads_it(rank, workers, told, lab, monkeypatch, capfd):
    """main tells rank 0's mistakes alone, and it is rank 1 that meets this one."""
    path = lab.folder / "x.jsonl"
    path.write_text("{}\n" + (lab.assets / "train.jsonl").read_text())
    flags = ["--training.dataloader.num_workers", str(workers)]
    keys = {"training__dataset_path": str(path), "data__bad_lines": "stop"}
    config = lab.config(None, *flags, **keys)
    tokenizer = load_tokenizer(config.model.hf_assets_path)
    monkeypatch.setenv("RANK", str(rank))
    with pytest.raises(ConfigError):
        next(iter(build_dataloader(1, 0, tokenizer, config)))
    assert ("let_titan: " in capfd.readouterr().err) == told


def test_validation_reads_the_same_tokens_each_time_and_divides_once(lab):
    config = lab.config(
        None,
        validation__enable=True,
        validation__dataset="pile",
        validation__dataset_path=str(lab.assets / "validation.jsonl"),
        validation__local_batch_size=2,
        validation__seq_len=64,
        validation__steps=3,
    )
    trainer = LetTrainer(config)
    trainer.run_folder.begin(0, None)
    for step in (1, 2):
        trainer.validator.validate(trainer.model_parts, step)
    first, second = trainer.metrics_processor.file.lines()
    assert first["val_loss"] == second["val_loss"]

    nll, n_tokens, n_bytes = 0.0, 0, 0
    model = trainer.model_parts[0].double()
    with torch.no_grad():
        for inputs, labels in itertools.islice(loader(lab, lab.assets / "validation.jsonl"), 3):
            logits = model(inputs["input"]).flatten(0, 1)
            nll += torch.nn.functional.cross_entropy(
                logits, labels.flatten(), reduction="sum"
            ).item()
            n_tokens += labels.numel()
            text = trainer.tokenizer.decode(labels.flatten().tolist(), skip_special_tokens=True)
            n_bytes += len(text.encode())
    trainer.close()
    assert first["val_loss"] == pytest.approx(nll / n_tokens, rel=1e-6)
    bits = nll / math.log(2) / n_bytes
    assert first["val_bits_per_byte"] == pytest.approx(bits, rel=1e-6)
