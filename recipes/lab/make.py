"""Makes the lab ready: deals the corpus, and spoils the teacher for ``ablate_teacher``.

    python recipes/lab/make.py --corpus 'CORPUS/*.jsonl.zst' [--retrain]

Tokenizer (byte-level BPE of 4,096 ids) and teachers (Hugging Face folders: one of 0.8M parameters
in its blocks, and one so small that its students outgrow it) belong in recipes/lab/made, which git
keeps, so that runs made anywhere at any time belong together. What is not there, or with
``--retrain`` all, is made by this trainer from the teacher's part of the corpus.

To outputs/lab go corpus/ (disjoint parts for teacher, student and validation), teacher_noise_* and
teacher_random, and lab.json: the sha256 of all that runs read, of which each run's key is made.
What is there already is kept: the program goes on where it stopped, training included.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))

from lab.arms import NOISE  # noqa: E402
from lab.bad_teachers import WEIGHTS, drawn_anew, make_worse, with_noise  # noqa: E402
from lab.corpus import deal, documents, fingerprints  # noqa: E402
from lab.launch import train  # noqa: E402
from let_titan.runs import FILES  # noqa: E402

LAB = ROOT / "outputs" / "lab"
MADE = ROOT / "recipes" / "lab" / "made"
VOCABULARY = 4096
TOKENIZER_DOCUMENTS = 3000
CONFIG = "recipes/lab/teacher.toml"
TEACHERS = {
    "teacher": {"model.flavor": "lab_teacher"},
    "small_teacher": {"model.flavor": "lab_small_teacher", "training.steps": "1000"},
}
"""{folder under recipes/lab/made: config keys}."""


def make_tokenizer(corpus: Path, folder: Path) -> None:
    """Trains a byte-level BPE of VOCABULARY ids with BOS and EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = itertools.islice(documents(str(corpus)), TOKENIZER_DOCUMENTS)
    tokenizer.train_from_iterator((str(document["text"]) for document in some), trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names) + "\n")


def make_teacher(keys: Mapping[str, str], run: Path, folder: Path) -> None:
    """Trains a teacher, or what is left of its run, and exports its last checkpoint."""
    here = str(run.relative_to(ROOT))  # since the export names it and is committed
    train(ROOT, CONFIG, {**keys, "job.dump_folder": here})
    command = [sys.executable, "-m", "let_titan.export", here, str(folder), "--dtype"]
    subprocess.run([*command, "bfloat16"], cwd=ROOT, check=True)
    shutil.rmtree(run / "checkpoint")


def make_missing(corpus: Path, runs: Path) -> None:
    """Makes what is to be committed: the tokenizer, the teachers, and what their runs measured."""
    if not (MADE / "tokenizer" / "tokenizer_config.json").exists():
        shutil.rmtree(MADE / "tokenizer", ignore_errors=True)
        make_tokenizer(corpus / "teacher.jsonl.zst", MADE / "tokenizer")
    for teacher, keys in TEACHERS.items():
        if (MADE / teacher).exists():
            continue
        run, kept = runs / f"{teacher}_run", MADE / f"{teacher}_run"
        make_teacher(keys, run, MADE / teacher)
        kept.mkdir(exist_ok=True)
        for name in FILES:
            shutil.copyfile(run / name, kept / name)


def make_bad_teachers(good: Path, folder: Path) -> None:
    """Makes those that ``ablate_teacher`` asks for, as ``folder``/teacher_*."""
    wanted = {f"noise_{level}": with_noise(float(level)) for level in NOISE}
    for name, change in {**wanted, "random": drawn_anew()}.items():
        bad = folder / f"teacher_{name}"
        if not bad.exists():
            make_worse(good, bad, change)


def what_runs_read() -> dict[str, str]:
    """Returns what lab.json holds."""
    corpus = [LAB / "corpus" / f"{name}.jsonl.zst" for name in ("student", "validation")]
    teachers = [*map(MADE.joinpath, TEACHERS), *sorted(LAB.glob("teacher_*/"))]
    weights = [path / WEIGHTS for path in teachers]
    files = [MADE / "tokenizer" / "tokenizer.json", *filter(Path.exists, weights)]
    return fingerprints(ROOT, corpus, files)


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="glob of files in The Pile's format")
    parser.add_argument("--retrain", action="store_true", help="make tokenizer and teacher anew")
    options = parser.parse_args(args)
    corpus, marker = LAB / "corpus", LAB / "corpus" / "complete"
    if marker.exists():
        print(f"{corpus} is dealt already: --corpus {options.corpus} is not read.")
    else:
        deal(options.corpus, corpus)
        marker.touch()
    if options.retrain:
        for old in (MADE, *LAB.glob("*teacher_*")):  # and their runs, the smaller one's too
            shutil.rmtree(old, ignore_errors=True)
    make_missing(corpus, LAB)
    make_bad_teachers(MADE / "teacher", LAB)
    (LAB / "lab.json").write_text(json.dumps(what_runs_read(), indent=2) + "\n")


if __name__ == "__main__":
    main()
