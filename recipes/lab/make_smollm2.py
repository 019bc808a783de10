"""Makes the lab's settings ready in which SmolLM2-135M teaches: the second one, and one GPU's.

    python recipes/lab/make_smollm2.py [--tokenizers PATH ... llama3=PATH]

Corpus: the first setting's, which recipes/lab/make.py deals. Teacher: assets/teachers, which
scripts/fetch_teacher.py brings. To outputs/lab_smollm2 go teacher_noise_* and teacher_random,
tokenizers/* for ``cross_tokenizer_training`` (a *.tiktoken file, or NAME= a folder with
tokenizer.json). What is there already is kept. To outputs/lab_smollm2 and outputs/lab_gpu goes
lab.json: the sha256 of all that a setting's runs read, of which each run's key is made.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))

from lab.bad_teachers import WEIGHTS  # noqa: E402
from lab.corpus import fingerprints  # noqa: E402
from lab.make import make_bad_teachers  # noqa: E402
from lab.runs import GPU, SMOLLM2, TOKENIZERS, Place  # noqa: E402

CORPUS = ROOT / "outputs" / "lab" / "corpus"
TEACHER = ROOT / "assets" / "teachers" / "smollm2-135m"


def copy_tokenizer(path: Path, folder: Path, name: str) -> None:
    """Copies a *.tiktoken file, or of a folder what makes its tokenizer, as ``folder``/``name``.

    Raises:
        ValueError: there is no such file, no tokenizer.json in the folder, or no name for it.
    """
    is_file = path.suffix == ".tiktoken"
    if not (path if is_file else path / "tokenizer.json").is_file() or not (is_file or name):
        raise ValueError(
            f"--tokenizers {path}: give a *.tiktoken file, or NAME=FOLDER with a tokenizer.json."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if is_file:  # by its name it is known
        shutil.copyfile(path, folder / path.name)
        return
    (folder / name).mkdir(exist_ok=True)
    for file in path.glob("tokenizer*.json"):
        shutil.copyfile(file, folder / name / file.name)


PARTS = {SMOLLM2: ("student", "validation"), GPU: ("student", "teacher", "validation")}
"""Of the corpus, that a setting's runs read."""


def what_runs_read(place: Place) -> dict[str, str]:
    """Returns what lab.json holds."""
    corpus = [CORPUS / f"{name}.jsonl.zst" for name in PARTS[place]]
    tokenizers = place.lab / TOKENIZERS
    files = [TEACHER / "tokenizer.json", TEACHER / WEIGHTS]
    files += [path / WEIGHTS for path in sorted(place.lab.glob("teacher_*/"))]
    files += sorted([*tokenizers.glob("*.tiktoken"), *tokenizers.glob("*/tokenizer.json")])
    return fingerprints(ROOT, corpus, files)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizers", nargs="*", default=[], help="[NAME=]PATH")
    options = parser.parse_args(args)
    for place in PARTS:
        place.lab.mkdir(parents=True, exist_ok=True)
    for named in options.tokenizers:
        name, _, path = named.rpartition("=")
        try:
            copy_tokenizer(Path(path), SMOLLM2.lab / TOKENIZERS, name)
        except ValueError as error:
            parser.error(str(error))
    make_bad_teachers(TEACHER, SMOLLM2.lab)
    for place in PARTS:
        (place.lab / "lab.json").write_text(json.dumps(what_runs_read(place), indent=2) + "\n")


if __name__ == "__main__":
    main()
