"""Checks that look at the machine: its disk, teachers and data there, its GPU."""

import json
import shutil
import subprocess
import sys

import pytest

from let_titan.checks import find_mistakes
from let_titan.device import HAS_ACCELERATOR
from tests.support import sentences


def test_folders_below_a_file_cannot_be_written(lab):
    file = lab.folder / "file"
    file.touch()
    before = sorted(lab.folder.rglob("*"))
    for dump in (file, file / "a" / "b"):
        (told,) = sentences(lab.parsed(job__dump_folder=str(dump)))
        assert f"job.dump_folder = '{dump}' cannot be written ({file}: Not a directory)" in told
    folder = {"checkpoint__enable": True, "checkpoint__folder": "file/checkpoint"}
    (told,) = sentences(lab.parsed(**folder, job__dump_folder=str(lab.folder)))
    assert "job.dump_folder / checkpoint.folder" in told
    read = lab.parsed(**folder, checkpoint__load_only=True, job__dump_folder=str(lab.folder))
    assert sentences(read) == []
    traces = {"comm__trace_buf_size": 1, "comm__save_traces_folder": "file"}
    (told,) = sentences(lab.parsed(**traces, job__dump_folder=str(lab.folder)))
    assert "job.dump_folder / comm.save_traces_folder" in told
    for name in ("", ".", str(lab.assets), "new"):
        told = sentences(lab.parsed(job__save_config_file=name))
        assert len(told) == (name != "new") and all("is a folder" in text for text in told)
    assert sentences(lab.parsed(job__dump_folder=str(lab.folder / "new" / "run"))) == []
    assert [path for path in sorted(lab.folder.rglob("*")) if path.suffix != ".toml"] == before


def test_one_process_makes_a_seed_checkpoint(lab):
    seed = {"checkpoint__enable": True, "checkpoint__create_seed_checkpoint": True}
    shard = {"parallelism__data_parallel_shard_degree": -1}
    config = lab.parsed(None, **seed, **shard)
    assert find_mistakes(config, 1) == []
    (told,) = find_mistakes(config, 2)
    assert "start it with --nproc_per_node 1" in str(told)


def test_the_model_alone_may_be_saved_for_hugging_face(lab):
    saved = {"checkpoint__last_save_in_hf": True, "checkpoint__last_save_model_only": True}
    assert sentences(lab.parsed(None, checkpoint__enable=True, **saved)) == []


@pytest.mark.parametrize(("freq", "refused"), [(12, True), (13, False)])
def test_a_profile_fits_between_two(freq, refused, lab):
    keys = {"enable_profiling": True, "profiler_warmup": 10, "profiler_active": 3}
    profiling = {f"profiling__{key}": value for key, value in keys.items()}
    told = sentences(lab.parsed(None, profiling__profile_freq=freq, **profiling))
    assert any("profiler_active = 13: raise it" in each for each in told) == refused


def test_a_read_only_file_system(lab):
    place = lab.folder / "read-only"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (told,) = sentences(lab.parsed(job__dump_folder=str(place / "run")))
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert "cannot be written" in told and "Read-only file system" in told


LLAMA = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
OWN_CODE = '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}'


@pytest.mark.parametrize(
    ("config", "weights", "sentence"),
    [
        (OWN_CODE, None, "brings Python code of its own: read it, then set"),
        ('{"model_type": "t5"}', None, "is a t5, not a causal language model"),
        ('{"model_type": "llama", "hidden_size": "x"}', None, "Validation error for field"),
        ("3", None, "cannot be read"),
        ("{", None, "not a valid JSON file"),
        (LLAMA, None, "holds neither *.safetensors nor *.bin"),
        (LLAMA, b"torn", "model.safetensors' are damaged"),
    ],
)
def test_an_unfit_teacher(config, weights, sentence, lab):
    teacher = lab.folder / "teacher"
    teacher.mkdir()
    (teacher / "config.json").write_text(config)
    (teacher / "mine.py").write_text("raise SystemExit('the code was run')")
    if weights is not None:
        (teacher / "model.safetensors").write_bytes(weights)
    told = sentences(lab.parsed({}, teacher__checkpoint=str(teacher)))
    assert sentence in told[0]


def test_a_missing_shard(lab):
    teacher = lab.folder / "teacher"
    shutil.copytree(lab.assets / "teacher", teacher)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (teacher / "model.safetensors.index.json").write_text(json.dumps(index))
    (told,) = sentences(lab.parsed({}, teacher__checkpoint=str(teacher)))
    assert "lacks model-00002.safetensors, which its index names" in told


@pytest.mark.parametrize("name", ["c4", "c4_test"])
def test_torchtitans_own_data_out_of_reach(name, lab):
    (told,) = sentences(lab.parsed(training__dataset=name, training__dataset_path="a/b/c"))
    assert f"training.dataset = '{name}' is read from 'a/b/c', which is no folder here" in told
    assert sentences(lab.parsed(training__dataset=name, training__dataset_path=".")) == []
    file = str(lab.assets / "train.jsonl")
    (told,) = sentences(lab.parsed(training__dataset=name, training__dataset_path=file))
    assert f"{file!r}, which is no folder here" in told and 'training.dataset = "pile"' in told


@pytest.mark.skipif(HAS_ACCELERATOR, reason="there is a GPU")
@pytest.mark.parametrize(
    "key",
    [
        "training.dataloader.pin_memory",
        "validation.dataloader.pin_memory",
        "profiling.enable_profiling",
        "profiling.enable_memory_snapshot",
        "training.gc_debug",
    ],
)
def test_what_needs_a_gpu(key, lab):
    (told,) = sentences(lab.parsed(None, f"--{key}"))
    assert told.startswith(f"{key} = true needs a GPU") and told.endswith("leave it off.")


def test_offload_needs_a_gpu_and_shards(lab):
    told = sentences(lab.parsed(None, "--training.enable_cpu_offload"))
    assert any("nothing is sharded here" in each for each in told)
    gpu = [each for each in told if "needs a GPU to offload from" in each]
    assert HAS_ACCELERATOR or (len(gpu) == 1 and len(told) == 2)
    sharded = lab.parsed(
        None, "--training.enable_cpu_offload", parallelism__data_parallel_shard_degree=2
    )
    assert find_mistakes(sharded, 2, elsewhere=True) == []


def test_damaged_tokenizer_files(lab):
    folder = lab.folder / "tokenizer"
    shutil.copytree(lab.assets / "tokenizer", folder)
    (folder / "tokenizer.json").write_text("{")
    (told,) = sentences(lab.parsed(model__hf_assets_path=str(folder)))
    assert "holds a tokenizer that cannot be read" in told
    (told,) = sentences(lab.parsed(model__hf_assets_path="x" * 300))
    if sys.version_info >= (3, 14):  # where pathlib takes what cannot be looked at for missing
        assert "holds no tokenizer.json" in told
    else:
        assert "cannot be read (File name too long)" in told
