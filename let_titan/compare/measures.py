"""Whether scores of one name are of one measure: other items, or another text, make another."""

from collections.abc import Sequence
from typing import Any

from let_titan.runs import Line, Run, is_number

PERPLEXITY = "bits per byte"

TERMS = ("items", "add_bos", "version", "hash", "bytes", "tokens", "seq_len", "stride")
"""What an evaluation says of how it was measured: of a task the first four, of a domain the others.
"""

ENDS = 0.01
"""Fraction by which the scored bytes of one text may differ between tokenizers: each window begins
with a token that is not scored, and the last window is not full."""

Key = tuple[str, str]
"""A task or domain, and its metric."""


def measures(line: Line) -> dict[Key, Line]:
    """Returns {key: all that one evaluation says of it}."""
    tasks = {(name, task["metric"]): task for name, task in (line.get("tasks") or {}).items()}
    domains = (line.get("perplexity") or {}).items()
    return tasks | {(name, PERPLEXITY): domain for name, domain in domains}


def scores_of(line: Line) -> dict[Key, float]:
    """Returns {key: value} of one evaluation, without what is no number."""
    return {
        (name, metric): value
        for (name, metric), said in measures(line).items()
        if is_number(value := said.get("bits_per_byte" if metric == PERPLEXITY else metric))
    }


def disagreement(said: Sequence[Line], one_tokenizer: bool = True) -> str | None:
    """Returns the first of ``TERMS`` in which measures differ, None where they are one.

    What a measure does not say is not held against it.
    """
    for term in TERMS:
        values = [value for each in said if (value := each.get(term)) is not None]
        if values and not agree(term, values, one_tokenizer):
            return term
    return None


def agree(term: str, values: Sequence[Any], one_tokenizer: bool) -> bool:
    """Whether measures have a term in common.

    Bits per byte ask for the same text: to other tokenizers that is other tokens, and about as many
    bytes.
    """
    if one_tokenizer or term not in ("tokens", "bytes"):
        return all(value == values[0] for value in values)
    return term == "tokens" or max(values) <= (1 + ENDS) * min(values)


def unlike_at(runs: Sequence[Run], key: Key, step: int) -> str | None:
    """Returns in which of ``TERMS`` the runs' measures of a step differ; each run has one."""
    one_tokenizer = len({run.fact("tokenizer.sha256") for run in runs}) == 1
    return disagreement([measure_at(run, key, step) for run in runs], one_tokenizer)


def measure_at(run: Run, key: Key, step: int) -> Line:
    return next(measures(line)[key] for line in run.evaluations if line["step"] == step)
