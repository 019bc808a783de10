"""What perplexity is asked for on the command line, and what it takes where it is not."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from let_titan.config import Data
from let_titan.errors import ConfigError
from let_titan.evaluate import perplexity
from let_titan.tokenizer.build import load_tokenizer
from tests.conftest import TEXTS, VOCAB
from tests.support import SEQ_LEN


def flags(names, values):
    return [f"--{'' if value else 'no-'}{name}" for name, value in zip(names, values, strict=True)]


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("around", [(True, False), (False, True)])
def test_what_stands_around_documents_is_what_is_asked_for(around, asked, assets, tmp_path):
    """Else what stood there in training."""
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": " ".join(TEXTS)}))
    trained = [not each for each in around] if asked else around
    model = SimpleNamespace(folder=assets / "tokenizer", data=Data())
    model.add_bos, model.add_eos = trained
    given = flags(("add-bos", "add-eos"), around) if asked else []
    options = ["model", "--data", str(tmp_path / "corpus.jsonl"), "--out", "out", *given]
    packed = perplexity.corpus_of(model, perplexity.parse(options))
    ids = np.concatenate([w.ids for w in packed.windows(SEQ_LEN, 1)])
    tokenizer = load_tokenizer(str(assets / "tokenizer"))
    assert tuple(special in ids for special in (tokenizer.bos_id, tokenizer.eos_id)) == around


@pytest.mark.parametrize(
    ("longest", "taken", "refused"),
    [(16, {None: 16, 1: 1, 16: 16}, [0, -1, 17]), (None, {None: 2048, 1: 1, 4096: 4096}, [0])],
    ids=["a limit", "no limit"],
)
def test_the_window_is_within_what_the_model_can_read(longest, taken, refused, monkeypatch):
    monkeypatch.setattr(perplexity, "longest_of", lambda folder: longest)
    model = SimpleNamespace(folder=None, name="m")
    assert {asked: perplexity.context(model, asked) for asked in taken} == taken
    for asked in refused:
        with pytest.raises(ConfigError, match=f"--seq-len {asked} must be from 1 to"):
            perplexity.context(model, asked)


@pytest.mark.parametrize(
    "content",
    ["{", '{"model_type": "nothing"}', '{"model_type": "gpt2", "n_positions": "many"}'],
    ids=["torn", "unknown", "of the wrong type"],
)
def test_a_config_json_that_cannot_be_read_is_told(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"has no config\.json that can be read \(\S"):
        perplexity.longest_of(tmp_path)


def test_a_model_of_images_and_text_reads_as_many_tokens_as_its_text_does(tmp_path):
    text = {"model_type": "llama", "max_position_embeddings": 77}
    config = {"model_type": "llava", "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert perplexity.longest_of(tmp_path) == 77


def test_a_model_is_read_in_the_dtype_and_the_batches_asked_for(
    assets, tmp_path, monkeypatch, capsys
):
    seen, measure = [], perplexity.measure

    def noted(network, windows, batch_size, n_bytes):
        seen.append((network.dtype, network.training, batch_size))
        return measure(network, windows, batch_size, n_bytes)

    monkeypatch.setattr(perplexity, "measure", noted)
    config = GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    for file in (assets / "tokenizer").iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    rows = [{"text": TEXTS[0]}, {"text": ""}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = [str(tmp_path / "model"), "--data", str(tmp_path / "corpus.jsonl"), "--device", "cpu"]
    options += ["--out", str(tmp_path / "out"), "--stride", "16"]
    for dtype in ("bfloat16", "float32"):
        assert perplexity.main([*options, "--dtype", dtype, "--batch-size", "3"]) == 0
    assert seen == [(torch.bfloat16, False, 3), (torch.float32, False, 3)]
    (found,) = json.loads((tmp_path / "out" / "perplexity.json").read_text())["models"]
    assert list(found["perplexity"]) == ["overall", "(no name)"]
    (tmp_path / "corpus.jsonl").write_text(json.dumps(rows[1]))
    assert perplexity.main(options) == 2
    assert "does not fill one window of 16 tokens (1 empty left out)" in capsys.readouterr().err
