"""Makes the lab: corpus parts, a tokenizer, and a small teacher trained by this trainer.

    python recipes/lab/make.py --corpus 'CORPUS/*.jsonl.zst'

Everything goes to outputs/lab: corpus/ (disjoint parts for teacher, student and validation),
tokenizer/ (byte-level BPE of 4,096 ids, trained on the teacher's part), teacher/ (0.8M parameters
in its blocks, as a Hugging Face folder), teacher_noise_* and teacher_random (worse ones) and
lab.json (sha256 of what runs read, part of every run's key).
What is there already is kept: the program goes on where it stopped, training included.
"""

import argparse
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))

from lab.arms import NOISE  # noqa: E402
from lab.bad_teachers import drawn_anew, make_worse, with_noise  # noqa: E402
from lab.corpus import deal, documents  # noqa: E402
from lab.launch import train  # noqa: E402

LAB = ROOT / "outputs" / "lab"
VOCABULARY = 4096
TOKENIZER_DOCUMENTS = 3000
TEACHER = "recipes/lab/teacher.toml"


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


def make_teacher(run: Path, folder: Path) -> None:
    """Trains the teacher, or what is left of its run, and exports its last checkpoint."""
    train(ROOT, TEACHER, {"job.dump_folder": str(run)})
    command = [sys.executable, "-m", "let_titan.export", str(run), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    shutil.rmtree(run / "checkpoint")


def make_bad_teachers(good: Path) -> None:
    """Makes those that ``ablate_teacher`` asks for, beside the good one."""
    wanted = {f"noise_{level}": with_noise(float(level)) for level in NOISE}
    for name, change in {**wanted, "random": drawn_anew()}.items():
        folder = good.with_name(f"{good.name}_{name}")
        if not folder.exists():
            make_worse(good, folder, change)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="glob of files in The Pile's format")
    options = parser.parse_args(args)
    corpus, marker = LAB / "corpus", LAB / "corpus" / "complete"
    if not marker.exists():
        deal(options.corpus, corpus)
        marker.touch()
    if not (LAB / "tokenizer" / "tokenizer_config.json").exists():
        shutil.rmtree(LAB / "tokenizer", ignore_errors=True)
        make_tokenizer(corpus / "teacher.jsonl.zst", LAB / "tokenizer")
    if not (LAB / "teacher").exists():
        make_teacher(LAB / "teacher_run", LAB / "teacher")
    make_bad_teachers(LAB / "teacher")
    made = [
        *(corpus / f"{name}.jsonl.zst" for name in ("student", "validation")),
        LAB / "tokenizer" / "tokenizer.json",
        LAB / "teacher" / "model.safetensors",
    ]
    found = {str(path.relative_to(LAB)): sha256(path) for path in made}
    (LAB / "lab.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
