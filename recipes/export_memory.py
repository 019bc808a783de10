"""How much memory does the export of a large checkpoint take?

    python recipes/export_memory.py [--flavor 7B] [--vocabulary 32000] [--folder SCRATCH]

Writes a DCP checkpoint of the flavor's shape, made-up float32 weights, and exports it to bfloat16
with python -m let_titan.export as a user does: its largest resident memory as the kernel counts
it, and its time. Then every tensor's first and last row is looked at. Needs about 1.6 x the
checkpoint on disk (43 GB at 7B), which is deleted at the end. Writes recipes/results/export/
(results.json, report.md).
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from tokenizers import Tokenizer, models

from let_titan.checkpoint.checksums import ChecksumWriter, read_metadata
from let_titan.device import peak_resident_bytes
from let_titan.export.shape import parameter_shapes
from let_titan.export.weights import WeightStream
from let_titan.run.summary import surroundings
from let_titan.student import FLAVORS, LetModelArgs
from let_titan.tokenizer.build import fingerprint, load_tokenizer

RESULTS = Path(__file__).parent / "results" / "export"
SEQ_LEN = 2048


def made_up(args: LetModelArgs) -> dict[str, torch.Tensor]:
    """Returns the student's parameters: all rows of a matrix are alike, and stored once.

    So the whole model takes a few megabytes here; DCP writes it out in full, tensor by tensor.
    """
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape.shape[-1], generator=generator).expand(shape.shape)
        for name, shape in parameter_shapes(args).items()
    }


def write_tokenizer(vocabulary: int, folder: Path) -> None:
    """Writes a tokenizer of that many words."""
    folder.mkdir()
    words = {f"w{i}": i for i in range(vocabulary)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    config = {"bos_token": "w1", "eos_token": "w2"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_run(flavor: str, vocabulary: int, run: Path) -> LetModelArgs:
    """Writes a run's folder as far as an export reads it; returns the student's arguments."""
    write_tokenizer(vocabulary, run / "tokenizer")
    args = FLAVORS[flavor]
    args.vocab_size, args.max_seq_len = vocabulary, SEQ_LEN
    weights = made_up(args)
    folder = run / "checkpoint" / "step-1"
    # A file per tensor: DCP keeps a file's tensors in memory until the file is whole.
    writer = ChecksumWriter(str(folder), single_file_per_rank=False)
    dcp.save(weights, storage_writer=writer, no_dist=True)
    path = str(run / "tokenizer")
    summary = {
        "config": {
            "model": {"name": "let_llama", "flavor": flavor, "hf_assets_path": path},
            "training": {"seq_len": SEQ_LEN, "steps": 1},
            "optimizer": {"lr": 0.0},
        },
        "let_plan": None,
        "hardware": {},
        "parameters": {"total": sum(tensor.numel() for tensor in weights.values())},
        "tokenizer": {"path": path, "sha256": fingerprint(load_tokenizer(path))},
        "versions": {},
    }
    (run / "summary.json").write_text(json.dumps(summary))
    return args


def export(run: Path, out: Path) -> dict[str, float]:
    """Exports in a process of its own; returns its peak memory, its seconds and CPU seconds."""
    command = [sys.executable, "-m", "let_titan.export", str(run), str(out), "--dtype", "bfloat16"]
    begin, peak = time.monotonic(), 0
    started = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while started.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, peak_resident_bytes(started.pid))  # of this child alone
        time.sleep(0.05)
    used = started.cpu_times()  # a zombie's are still there
    if started.wait():
        raise subprocess.CalledProcessError(started.returncode, command)
    return {
        "peak_rss_gb": peak / 1e9,
        "seconds": time.monotonic() - begin,
        "cpu_seconds": used.user + used.system,
    }


def compare(args: LetModelArgs, run: Path, out: Path) -> None:
    """Checks each exported tensor's shape, first and last row against what was saved."""
    folder = run / "checkpoint" / "step-1"
    stream = WeightStream(folder, read_metadata(folder), args, torch.bfloat16)
    weights, missing = made_up(args), set(stream.native)
    for file in sorted(out.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, it is no dict
                found, saved = tensors.get_slice(name), weights[stream.native[name]]
                assert found.get_shape() == list(stream.shapes[name].shape), name
                for row in (slice(0, 1), slice(-1, None)):  # of a norm's vector: its ends
                    assert torch.equal(found[row], saved[row].bfloat16()), name
                missing.remove(name)
    assert not missing, f"not exported: {sorted(missing)}"


def size_gb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def measure(flavor: str, vocabulary: int, folder: Path) -> dict[str, Any]:
    """Writes, exports and compares below ``folder``; returns the figures."""
    run, out = folder / "run", folder / "hf"
    run.mkdir()
    args = write_run(flavor, vocabulary, run)
    needed = 0.5 * size_gb(run)
    if shutil.disk_usage(folder).free < needed * 1e9:
        raise OSError(f"{folder} has no room for another {needed:.0f} GB: name another --folder.")
    figures = export(run, out)
    compare(args, run, out)
    shapes = parameter_shapes(args).values()
    return {
        "flavor": flavor,
        "vocabulary": vocabulary,
        "parameters": sum(shape.numel() for shape in shapes),
        "tensors": len(shapes),
        "checkpoint_gb": size_gb(run),
        "exported_gb": size_gb(out),
        **figures,
    }


def report(found: dict[str, Any]) -> str:
    return (
        f"# Export of a {found['flavor']}-shaped checkpoint\n\n"
        f"{found['parameters']:,} parameters ({found['vocabulary']:,} ids): "
        f"{found['checkpoint_gb']:.1f} GB of float32 to {found['exported_gb']:.1f} GB "
        f"of bfloat16, by `python -m let_titan.export` on one thread. Made by "
        "`python recipes/export_memory.py`.\n\n"
        "| largest RSS | time | CPU time |\n|--:|--:|--:|\n"
        f"| {found['peak_rss_gb']:.1f} GB | {found['seconds']:.0f} s "
        f"| {found['cpu_seconds']:.0f} s |\n\n"
        f"The first and last row of each of the {found['tensors']} tensors are those that were "
        f"saved. {found['machine']['hardware']['cpu']}, shared with other work.\n"
    )


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flavor", choices=tuple(FLAVORS), default="7B")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="ids (32000)")
    parser.add_argument("--folder", type=Path, help="where there is room (the system's temporary)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    with TemporaryDirectory(dir=options.folder) as scratch:
        found = measure(options.flavor, options.vocabulary, Path(scratch))
    found["machine"] = surroundings()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.out / "report.md").write_text(report(found))


if __name__ == "__main__":
    main()
