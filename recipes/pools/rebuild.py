"""Examples of bigbench as rows of the tasks that lm-evaluation-harness knows."""

import re
from typing import Any

PAIR = re.compile(
    r"Sentence 1: (.*?)\s*Answer1: (.*?)\s*Sentence 2: (.*?)\s*Answer2: (.*?)\s*", re.DOTALL
)


def winogrande_pairs(examples: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    """Returns pairs of rows with WinoGrande's columns, each once, in the order of the examples.

    Each example shows pairs of sentences with one blank and its answer; the answers of a pair are
    the options of both. So each option is right once, and whoever always prefers one of the two,
    or does not read, is right half the time. Pairs whose answers do not stand in the sentence are
    left out.
    """
    texts = dict.fromkeys(text for example in examples for text in example["target"])
    matches = [match for text in texts if (match := PAIR.fullmatch(text))]
    pairs = []
    for first, answer_1, second, answer_2 in (match.groups() for match in matches):
        options = [answer.rstrip(" .") for answer in (answer_1, answer_2)]
        if is_sound(first, options) and second.count("_") == 1:
            shared = {"option1": options[0], "option2": options[1]}
            rows = [{"sentence": first, **shared, "answer": "1"}]
            pairs.append([*rows, {"sentence": second, **shared, "answer": "2"}])
    return pairs


def is_sound(sentence: str, options: list[str]) -> bool:
    """Says whether there is one blank and both of two different options stand in the sentence."""
    there = [option.lower() in sentence.lower() for option in options]
    return sentence.count("_") == 1 and options[0] != options[1] and all(there)


def science_rows(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with ARC's columns.

    "Question: Why?  (A) So. (B) No?" has its choices in the text, the question mark at its end; a
    choice may name "(A)", too, so each letter is looked for behind the one before.
    """
    return [science_row(example["input"], example["target"][0]) for example in examples]


def science_row(text: str, answer: str) -> dict[str, Any]:
    places, begin = [], 0
    for letter in "ABCDE":
        place = text.find(f"({letter})", begin)
        if place < 0:
            break
        places.append(place)
        begin = place + 3
    ends = [*places[1:], len(text)]
    choices = [text[i + 3 : end].strip() for i, end in zip(places, ends, strict=True)]
    choices[-1] = choices[-1].removesuffix("?")
    labels = list("ABCDE"[: len(choices)])
    return {
        "question": text[: places[0]].removeprefix("Question:").strip(),
        "choices": {"text": choices, "label": labels},
        "answerKey": answer.strip(" ."),
    }
