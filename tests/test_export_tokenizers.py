"""Every kind of tokenizer comes along with an export, id by id."""

import json

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoTokenizer

from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.tokenizer.build import embedding_size, fingerprint, load_tokenizer
from let_titan.tokenizer.encoder import load_encoder
from let_titan.tokenizer.match import PROBES
from tests.conftest import TEXTS, make_tokenizer
from tests.exported import same_logits, student, write_run


def gpt2_files(folder):
    """vocab.json and merges.txt, with special tokens in tokenizer_config.json alone."""
    make_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()


def sentencepiece_style(folder):
    """BPE over U+2581 with byte fallback and a template that prepends BOS, as Llama 2's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback()]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special[:3], show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, *special[3:]], trainer)
    tokenizer.add_tokens(special[3:])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"content": "<s>", "__type": "AddedToken"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def unigram(folder):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))


def words(folder):
    """vocab.txt: one word a line, split at nothing."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("[UNK]\nthe\nquick\n")


def with_a_gap(folder):
    """Ids with unused numbers between them, as cl100k's."""
    make_tokenizer(folder)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    vocabulary = described["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] += 80
    path.write_text(json.dumps(described))


KINDS = {
    "tokenizer.json": make_tokenizer,
    "vocab.json and merges.txt": gpt2_files,
    "SentencePiece style": sentencepiece_style,
    "unigram": unigram,
    "vocab.txt": words,
    "a gap in its ids": with_a_gap,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_comes_along(kind, tmp_path):
    KINDS[kind](tmp_path / "tokenizer")
    ours = load_tokenizer(str(tmp_path / "tokenizer"))
    model = student("debug", embedding_size(ours))
    write_run(tmp_path / "run", model, "debug", tmp_path / "tokenizer")
    export(find_source(tmp_path / "run"), tmp_path / "hf")
    assert same_logits(model, tmp_path / "hf")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert 1 + max(theirs.get_vocab().values()) == embedding_size(ours)
    assert embedding_size(ours) - ours.get_vocab_size() == (80 if "gap" in kind else 0)
    encoder = load_encoder(str(tmp_path / "tokenizer"))  # of token shards
    assert encoder.vocab_size == len(encoder.pieces()) == embedding_size(ours)
    for text in (*TEXTS[:9], *PROBES, "the"):
        wanted = ours.tokenizer.encode(text, add_special_tokens=False).ids
        assert theirs.encode(text, add_special_tokens=False) == wanted
        assert theirs(text).input_ids == ours.tokenizer.encode(text).ids
        assert theirs.decode(wanted) == ours.decode(wanted, skip_special_tokens=False)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    config = AutoConfig.from_pretrained(tmp_path / "hf")
    assert (config.bos_token_id, config.eos_token_id) == (ours.bos_id, ours.eos_id)
    # The export is a tokenizer folder for another run, too.
    assert fingerprint(load_tokenizer(str(tmp_path / "hf"))) == fingerprint(ours)
