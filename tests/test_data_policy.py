"""What of a corpus is read: weights of sets, and a validation split by hash."""

from collections import Counter

import pytest

from let_titan.build_data import build_dataloader
from let_titan.config import Data
from let_titan.data.policy import policy_of
from let_titan.data.tokenize import tokenize
from let_titan.errors import ConfigError
from let_titan.tokenizer.build import load_tokenizer
from tests.pile_rows import LINES, ROWS, read


def test_sets_are_weighted_and_left_out(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"".join(LINES))
    weights = policy_of(Data(weights=["a:0", "b:2.5"]), validation=False).weights
    texts, _ = read(tmp_path / "x.jsonl", weights=weights, epochs=2)
    found = Counter(texts)
    assert set(found) == {row["text"] for row in ROWS if row["meta"]["pile_set_name"] == "b"}
    assert set(found.values()) == {4, 5, 6}  # 2 or 3 in each of two epochs, drawn anew
    assert sum(found.values()) == pytest.approx(200 * 5, rel=0.1)


def test_validation_by_hash_is_disjoint_and_all_there_is(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"".join(LINES + LINES))
    train, _ = read(tmp_path / "x.jsonl", held_out=0.25)
    held, _ = read(tmp_path / "x.jsonl", held_out=0.25, validation=True)
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(2 * [row["text"] for row in ROWS])
    assert len(held) == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize("shard", [False, True])
def test_a_misspelt_set_is_told(shard, lab, tmp_path, caplog):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(LINES))
    tokenizer = load_tokenizer(str(lab.assets / "tokenizer"))
    if shard:
        tokenize(str(path), str(lab.assets / "tokenizer"), tmp_path / "out", Data())
        path = next((tmp_path / "out").iterdir())
    for weights, told in (["a:0"], False), (["a:0", "B:2"], True):
        caplog.clear()
        config = lab.config(None, training__dataset_path=str(path), data__weights=weights)
        build_dataloader(1, 0, tokenizer, config)
        build_dataloader(2, 1, tokenizer, config)  # another rank is silent
        found = [each for each in caplog.messages if "data.weights" in each]
        assert len(found) == told
    assert "names 'B', and none of the first" in found[0] and "('a', 'b')" in found[0]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"weights": ["Github"]}, "data.weights has 'Github'"),
        ({"weights": ["Github:-1"]}, "data.weights has 'Github:-1'"),
        ({"weights": ["Github:nan"]}, "data.weights has 'Github:nan'"),
        ({"weights": [":1"]}, "data.weights has ':1'"),
        ({"weights": ["Github:0", "Github:2"]}, "data.weights names 'Github' twice"),
        ({"validation_fraction": 1.0}, "data.validation_fraction = 1.0"),
        ({"lanes": -1}, "data.lanes = -1"),
        ({"max_document_mib": 0}, "data.max_document_mib = 0"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError) as error:
        policy_of(Data(**values), validation=False)
    assert message in str(error.value)
