"""A resumed run is validated on the same tokens, so that its curve has one measure.

How often may change, and validation may begin or end.
"""

from typing import Any

from let_titan.checks.checkpoint import differs
from let_titan.checks.mistakes import Mistakes
from let_titan.checks.resumed_data import is_other
from let_titan.config import LetJobConfig
from let_titan.data.files import PILE, data_fingerprint
from let_titan.data.settings import Data
from let_titan.data.weights import weights_of

KEYS = ("add_bos", "add_eos", "validation_fraction", "max_document_mib")
"""Keys of [data] that decide what validation reads: nothing is shuffled there."""


def resumed_validation_mistakes(
    config: LetJobConfig, data: dict[str, Any] | None, before: dict[str, Any]
) -> Mistakes:
    """The same sequences of the same files.

    Args:
        config: of the resumed run.
        data: the fingerprint of what validation read so far; None: there was none.
        before: the config of then, in which keys of today may be missing.
    """
    now = config.validation
    if data is None or not now.enable:
        return
    if is_other(data, data_fingerprint(now.dataset, now.dataset_path)):
        yield differs(
            config,
            f"validation read {data['dataset']!r} from {data['path']!r}, other files than now",
            "validation.dataset and dataset_path to those",
        )
    had = before["validation"]
    if had["seq_len"] != now.seq_len:
        what = f"validation read sequences of {had['seq_len']} tokens"
        yield differs(config, what, f"validation.seq_len = {had['seq_len']}")
    steps, batch = had["steps"], had["local_batch_size"]
    if steps * batch != now.steps * now.local_batch_size:
        yield differs(
            config,
            f"validation read {steps * batch} sequences, and now would read "
            f"{now.steps * now.local_batch_size}",
            f"validation.steps = {steps} and validation.local_batch_size = {batch}",
        )
    if now.dataset == PILE:
        yield from resumed_document_mistakes(config, before.get("data", {}))


def resumed_document_mistakes(config: LetJobConfig, before: dict[str, Any]) -> Mistakes:
    """The same documents of these files, even where training begins other data."""
    defaults = Data()
    for key in KEYS:
        value = before.get(key, getattr(defaults, key))
        if value != getattr(config.data, key):
            did = f"validation was read with data.{key} = {value!r}"
            yield differs(config, did, f"data.{key} = {value!r}")
    weights = before.get("weights", defaults.weights)
    if left_out(weights) != left_out(config.data.weights):
        did = f"validation left out the sets of weight 0 in {weights!r}"
        yield differs(config, did, "these weights to 0, and no others")


def left_out(weights: list[str]) -> set[str]:
    """Returns the sets that validation does not read; of others it reads each document once."""
    return {name for name, weight in weights_of(weights).items() if weight == 0}
