"""Perplexity: the trainer's validation and the exported model say the same number."""

import errno
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from let_titan.checkpoint.folders import set_aside
from let_titan.evaluate.perplexity import main, show
from let_titan.evaluate.scoring import figures, measure
from let_titan.evaluate.windows import Packed, Window
from let_titan.tokenizer.build import load_tokenizer, token_bytes
from tests.conftest import TEXTS, VOCAB
from tests.resumed import STEPS, train
from tests.support import SEQ_LEN, Lab, cut_documents

WINDOWS = 4


def write_corpus(path, *long):
    """Two sets by turns, and texts that are too long for the run below."""
    texts = [(text, "Even" if i % 2 == 0 else "Odd") for i, text in enumerate(TEXTS[:30])]
    texts[1:1] = [(text, "Even") for text in long]
    rows = ({"text": text, "meta": {"pile_set_name": name}} for text, name in texts)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def finished(assets, tmp_path_factory):
    """A run that validates on WINDOWS windows of a corpus of which [data] leaves out parts.

    Returns:
        The run's folder, its last validation line, the corpus.
    """
    lab = Lab(assets, tmp_path_factory.mktemp("perplexity"))
    corpus = write_corpus(lab.folder / "corpus.jsonl", "too long. " * 2**17)
    keys = {
        "validation__dataset_path": str(corpus),
        "validation__local_batch_size": WINDOWS,
        "data__weights": ["Odd:0", "Even:0.5"],  # validation takes what has any weight once
        "data__max_document_mib": 1,
        "data__validation_fraction": 0.8,
    }
    lines = train(lab, **keys)["lines"]
    line = next(x for x in lines if x["step"] == STEPS and "val_loss" in x)
    return lab.folder / "run", line, corpus


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl")


def result(out):
    return json.loads((out / "perplexity.json").read_text())["models"][0]["perplexity"]


def test_the_number_is_the_trainers(finished, tmp_path):
    run, line, data = finished
    options = ["--data", str(data), "--out", str(tmp_path), "--windows", str(WINDOWS)]
    assert main([str(run), *options, "--batch-size", "3"]) == 0
    (model,) = json.loads((tmp_path / "perplexity.json").read_text())["models"]
    assert list(model["perplexity"]) == ["overall", "Even"]
    assert model["left_out"]["too long"] == 1 and model["left_out"]["not of the validation set"] > 5
    overall = model["perplexity"]["overall"]
    assert overall["tokens"] == WINDOWS * SEQ_LEN
    assert overall["nll"] == pytest.approx(line["val_loss"], rel=0, abs=1e-5)
    assert overall["bits_per_byte"] == pytest.approx(line["val_bits_per_byte"], rel=0, abs=1e-5)
    noted = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    read = {"seq_len": SEQ_LEN, "stride": None}
    assert noted["step"] == STEPS and noted["perplexity"]["overall"] == overall | read


def test_of_a_checkpoint_that_was_set_aside_nothing_is_noted(finished, corpus, tmp_path):
    """Its step is another checkpoint's in the run's history."""
    run = shutil.copytree(finished[0], tmp_path / "run")
    (run / "evaluations.jsonl").unlink(missing_ok=True)
    aside = set_aside(run / "checkpoint", STEPS - 1)
    options = ["--data", str(corpus), "--out", str(tmp_path / "out"), "--windows", "1"]
    assert main([str(aside / f"step-{STEPS}"), *options]) == 0
    (model,) = json.loads((tmp_path / "out" / "perplexity.json").read_text())["models"]
    assert model["name"] == f"run/abandoned-1/step-{STEPS}"
    assert not (run / "evaluations.jsonl").exists()


def test_a_checkpoint_that_left_its_run_whose_tokenizer_moved(finished, assets, corpus, tmp_path):
    """As the sentences of what is missing say, and of all of them the export is given it."""
    run = shutil.copytree(finished[0], tmp_path / "run")
    step = (run / "checkpoint" / f"step-{STEPS}").rename(tmp_path / f"step-{STEPS}")
    tokenizer = shutil.copytree(assets / "tokenizer", tmp_path / "tokenizer")
    summary = json.loads((run / "summary.json").read_text())
    summary["tokenizer"]["path"] = str(tmp_path / "gone")
    (run / "summary.json").write_text(json.dumps(summary))
    options = ["--data", str(corpus), "--out", str(tmp_path / "out"), "--windows", "1"]
    assert main([str(step), *options]) == 2
    assert main([str(step), *options, "--run", str(run)]) == 2
    there = ["--run", str(run), "--tokenizer", str(tokenizer)]
    assert main([str(step), *options, *there]) == 0
    noted = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    found = result(tmp_path / "out")
    assert noted["step"] == STEPS and noted["perplexity"].keys() == found.keys()
    assert all(
        figures.items() <= noted["perplexity"][part].items() for part, figures in found.items()
    )


def test_what_the_run_left_out_is_read_on_demand(finished, corpus, tmp_path):
    options = ["--data", str(corpus), "--out", str(tmp_path), "--all-documents"]
    assert main([str(finished[0]), *options]) == 0
    assert list(result(tmp_path)) == ["overall", "Even", "Odd"]
    every = result(tmp_path)["overall"]["tokens"]
    assert main([str(finished[0]), *options, "--every", "3"]) == 0
    plain = every // SEQ_LEN
    assert result(tmp_path)["overall"]["tokens"] == SEQ_LEN * -(-plain // 3)


def by_hand(folder, corpus, stride):
    """NLL and bytes of each set, one token at a time, in float64."""
    tokenizer = load_tokenizer(str(folder))
    stream = []
    for row in map(json.loads, corpus.read_text().splitlines()):
        ids = tokenizer.tokenizer.encode(row["text"], add_special_tokens=False).ids
        ids = [tokenizer.bos_id, *ids, tokenizer.eos_id]
        stream += [(i, row["meta"]["pile_set_name"]) for i in ids]
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    n_bytes, sums, done = token_bytes(tokenizer), {}, 1
    for begin in range(0, len(stream), stride):
        window = stream[begin : begin + SEQ_LEN + 1]
        with torch.no_grad():
            log = network(torch.tensor([[i for i, _ in window[:-1]]])).logits[0].log_softmax(-1)
        for place in range(max(done, begin + 1), begin + len(window)):
            token, name = stream[place]
            nll = -float(log[place - begin - 1, token])
            sums.setdefault(name, np.zeros(3))[:] += (nll, 1, int(n_bytes[token]))
        done = begin + len(window)
        if done >= len(stream):
            return sums


@pytest.mark.parametrize("stride", [7, SEQ_LEN])
def test_strided_windows_score_every_token_once(finished, corpus, stride, tmp_path):
    options = ["--data", str(corpus), "--out", str(tmp_path), "--stride", str(stride)]
    assert main([str(finished[0]), *options, "--batch-size", "4", "--all-documents"]) == 0
    found = result(tmp_path)
    wanted = by_hand(next((tmp_path / "exports").iterdir()), corpus, stride)
    assert list(found) == ["overall", "Even", "Odd"]
    for name, (nll, tokens, n_bytes) in {**wanted, "overall": sum(wanted.values())}.items():
        assert (found[name]["tokens"], found[name]["bytes"]) == (tokens, n_bytes)
        assert found[name]["nll"] == pytest.approx(nll / tokens, abs=1e-5)
        assert found[name]["per_byte"] == pytest.approx(math.exp(nll / n_bytes), abs=1e-5)


def test_windows_of_one_length_are_scored_together_as_many_as_asked():
    """A bigram model, whose NLL is a row of a table; a strided corpus ends in a shorter window."""
    table, shapes = torch.randn(11, 11).bfloat16(), []

    def bigram(ids, use_cache):
        assert not use_cache
        shapes.append(tuple(ids.shape))
        return SimpleNamespace(logits=table[ids])

    bigram.device = torch.device("cpu")
    lengths, scored = [9, 9, 9, 9, 9, 5], [8, 3, 3, 3, 3, 2]
    windows = [
        Window(np.random.randint(11, size=length), np.arange(length) % 2, n)
        for length, n in zip(lengths, scored, strict=True)
    ]
    found = measure(bigram, iter(windows), 2, torch.arange(11))
    assert shapes == [(2, 8), (2, 8), (1, 8), (1, 4)]
    nll = -table.double().log_softmax(1)
    wanted = np.zeros((2, 3))
    for window in windows:
        pairs = list(zip(window.ids, window.ids[1:], window.sets[1:], strict=False))
        for before, after, index in pairs[-window.scored :]:
            wanted[index] += (nll[before, after].item(), 1, after)
    assert np.allclose([found[0], found[1]], wanted, rtol=1e-6)


def test_a_set_without_text_has_no_figures_per_byte():
    """Where all its scored ids are BOS and EOS."""
    found = figures(np.array([3.0, 2.0, 0.0]))
    assert found["per_token"] == pytest.approx(math.exp(1.5)) and found["nll"] == 1.5
    assert math.isnan(found["per_byte"]) and math.isnan(found["bits_per_byte"])


def test_plain_windows_are_disjoint(assets, corpus):
    packed = Packed(str(corpus), str(assets / "tokenizer"), add_bos=True, add_eos=True)
    plain = np.concatenate([w.ids for w in packed.windows(SEQ_LEN, None)])
    every = np.concatenate([ids for ids, _ in packed._pieces()])
    assert len(plain) % (SEQ_LEN + 1) == 0 and len(every) - len(plain) <= SEQ_LEN
    assert np.array_equal(plain, every[: len(plain)])


def test_a_tokenizer_that_cuts_documents_is_read_without_that(assets, corpus, tmp_path):
    shutil.copytree(assets / "tokenizer", tmp_path / "cuts")
    cut_documents(tmp_path / "cuts")
    read = []
    for folder in (assets / "tokenizer", tmp_path / "cuts"):
        packed = Packed(str(corpus), str(folder), add_bos=True, add_eos=True)
        read.append(np.concatenate([w.ids for w in packed.windows(SEQ_LEN, None)]))
    assert np.array_equal(*read)


@pytest.fixture(scope="module")
def stranger(assets, tmp_path_factory):
    """A GPT-2, whose config.json has its context as n_positions."""
    folder = tmp_path_factory.mktemp("stranger") / "gpt2"
    shutil.copytree(assets / "tokenizer", folder)
    config = GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_the_window_is_what_the_architecture_calls_it(stranger, corpus, tmp_path, capsys):
    options = ["--data", str(corpus), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([str(stranger), *options]) == 0
    (model,) = json.loads((tmp_path / "out" / "perplexity.json").read_text())["models"]
    assert model["seq_len"] == 16
    assert main([str(stranger), *options, "--seq-len", "17"]) == 2
    assert "--seq-len 17 must be from 1 to 16" in capsys.readouterr().err


def test_results_stand_as_they_come_and_mistakes_are_told_first(
    stranger, corpus, tmp_path, monkeypatch, capsys
):
    options = ["--data", str(corpus), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([str(stranger), str(tmp_path / "nowhere"), *options]) == 2
    assert not (tmp_path / "out").exists()  # nothing was measured before
    ragged = tmp_path / "ragged"
    shutil.copytree(stranger, ragged)
    (ragged / "model.safetensors").write_bytes(b"torn")
    assert main([str(stranger), str(ragged), *options]) == 2
    assert "holds no weights that can be read" in capsys.readouterr().err
    assert list(result(tmp_path / "out")) == ["overall", "Even", "Odd"]
    (tmp_path / "file").touch()
    assert main([str(stranger), *options, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "a file stands in the way" in capsys.readouterr().err
    monkeypatch.setattr("pathlib.Path.replace", full)
    assert main([str(stranger), *options]) == 1
    assert "perplexity.json cannot be written (No space left on device)" in capsys.readouterr().err
    assert list(result(tmp_path / "out")) == ["overall", "Even", "Odd"]  # as it was
    assert not list((tmp_path / "out").glob(".*"))


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_sentencepiece_file_alone_is_told(stranger, corpus, tmp_path, capsys):
    shutil.copytree(stranger, tmp_path / "hf")
    for file in (tmp_path / "hf").glob("tokenizer*"):
        file.unlink()
    (tmp_path / "hf" / "tokenizer.model").touch()
    out = str(tmp_path / "out")
    assert main([str(tmp_path / "hf"), "--data", str(corpus), "--out", out]) == 2
    assert "hf' holds no tokenizer (tokenizer.json, vocab.json" in capsys.readouterr().err


def test_a_sets_name_is_no_markup(capsys):
    figures = {"per_token": 1.0, "per_byte": 1.0, "bits_per_byte": 1.0, "tokens": 1}
    show("m [/it]", {"Wikipedia [en]": figures, "[/INST]": figures})
    told = capsys.readouterr().out
    assert all(name in told for name in ("[/it]", "[en]", "[/INST]"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--seq-len", "4096"], "--seq-len 4096 must be from 1 to 64"),
        (["--stride", "65"], "must not pass the window"),
        (["--stride", "0"], "--stride 0 must be at least 1"),
        (["--every", "0"], "--every 0 must be at least 1"),
        (["--data", "/nowhere/*.jsonl"], "matches no file"),
        (["--data", "{folder}/*.arrow"], "is a token shard"),
    ],
)
def test_mistakes_are_told(options, sentence, finished, corpus, tmp_path, capsys):
    (tmp_path / "a.arrow").touch()
    options = [option.format(folder=tmp_path) for option in options]
    call = [str(finished[0]), "--data", str(corpus), "--out", str(tmp_path / "out"), *options]
    assert main(call) == 2
    assert sentence in capsys.readouterr().err
