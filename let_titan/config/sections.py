"""The sections from [let] to [export], and single keys in others, on top of torchtitan's."""

import json
from dataclasses import dataclass, field
from typing import Literal

from torchtitan.config import JobConfig
from torchtitan.config.job_config import Model as TitanModel
from torchtitan.config.job_config import Training as TitanTraining
from torchtitan.tools.logging import logger

from let_titan.data.settings import Data


@dataclass
class Model(TitanModel):
    name: str = "let_llama"
    """Which model to train: torchtitan's Llama 3 with the alignment, registered by let_titan"""

    init_scheme: Literal["torchtitan", "llama"] = "torchtitan"
    """
    Initial weights, for LET and baseline alike. "torchtitan": its own (embedding std 1, output
    projections scaled by depth). "llama": every matrix and embedding normal with std 0.02, as in
    the LLaMA lineage (`initializer_range` of Hugging Face's LlamaConfig).
    """

    rope_theta: float = 10_000.0
    """Base of the rotary position embedding (RoPE), > 0. LLaMA's is 10000, Llama 3's 500000"""

    pad_vocab_to_multiple_of: int = 1
    """
    Rows of embedding and LM head are the tokenizer's ids, rounded up to a multiple of this: 64 or
    128 is fastest on a GPU, and tensor parallelism splits evenly what its degree divides. Logits
    of the rows beyond are -inf: never sampled, scored, trained or exported. 1: no such rows
    """


@dataclass
class Training(TitanTraining):
    max_nonfinite_steps: int = 0
    """
    How many steps whose loss or gradient is not finite are left out (no update, noted in
    metrics.jsonl) from the start of the process on; one more stops the run
    """


@dataclass
class Let:
    enable: bool = False
    """Align the student with the teacher. Without a [let] section the run is a plain baseline"""

    recipe: str = ""
    """Named defaults beneath the keys given explicitly. "paper": arXiv 2602.05393's settings"""

    k: int = 3
    """Student block whose output is aligned, 1..n_layers (paper, section 3: an early one)"""

    lambda_0: float = 0.1
    """Initial weight of the alignment loss, >= 0 (0.1 is the paper's best). 0 loads no teacher"""

    s_stop: int = 0
    """Optimiser step at which the weight reaches zero and the teacher leaves; 0: s_stop_fraction"""

    s_stop_fraction: float = 0.15
    """s_stop as a fraction of training.steps, in (0, 1]; give s_stop or this, not both"""

    auto_stop: bool = False
    """
    Let the teacher leave before s_stop, at the first look (see diagnostics_freq) that finds the
    smoothed cosine between the alignment's gradient and the NLL's at the aligned block below
    auto_stop_cosine, or no gain in auto_stop_gain any more. The step becomes the run's s_stop
    """

    auto_stop_cosine: float = 0.0
    """Threshold in [-1, 1] of the gradients' smoothed cosine; -1 never stops for it"""

    auto_stop_gain: float = 0.001
    """
    By how much the aligned block's smoothed cosine to the teacher must rise in ten looks, >= 0
    """

    schedule: str = "linear"
    """Shape of the weight before s_stop: "linear" (paper), "constant", "cosine", or "step" """

    loss: str = "cosine"
    """
    Alignment loss. "cosine": minus the mean cosine over valid tokens (paper, section 3). "logsum",
    "smooth_l1", "mse": as defined in let_titan/alignment/losses.py. "cka" compares sequences; "cca"
    maximises the canonical correlations of running covariances (let_titan/alignment/cca.py); both
    take any widths. Schedules and losses of your own: docs/extend.md
    """

    cca_ridge: float = 1e-3
    """Added to the covariances of the "cca" loss, in units of each side's mean variance, > 0"""

    cca_decay: float = 0.99
    """Weight, 0..1, that tokens keep from one step to the next in the "cca" loss's covariances"""

    cca_every: int = 1
    """
    Steps after which the directions of "cca" are found anew, by a singular value decomposition of
    [d_M, d_T]. In between, the loss pulls the student back to where it was
    """

    cca_tokens: float = 10.0
    """
    Tokens per feature of student and teacher that the covariances of "cca" must rest on before
    there are directions, and so a loss; 0: from the second step on
    """

    alpha: float = 4.0
    """Exponent of the "logsum" loss, >= 1 (Miles and Mikolajczyk: around 4)"""

    width_map: Literal[
        "interpolate", "truncate", "orthogonal", "procrustes", "linear", "orthogonal_learned"
    ] = "interpolate"
    """
    How widths meet. "interpolate": the teacher's hidden vector is interpolated linearly along its
    feature axis to the student's width (paper). "truncate": its first features, or zeros appended.
    "orthogonal": a fixed random matrix with orthonormal rows or columns. "procrustes": that one of
    these matrices that brings the teacher's states closest to the aligned block's. "linear": a
    learned matrix that takes the student's states to the teacher's width; "orthogonal_learned": one
    with orthonormal rows or columns throughout
    """

    procrustes_every: int = 50
    """
    Steps with a teacher after which the "procrustes" map is fitted anew, to the tokens since; it is
    fitted after the first step, too, and is part of the checkpoint
    """

    teacher_norm: Literal["none", "center", "standardize"] = "none"
    """
    What is done to the teacher's states before they are mapped, with each feature's mean and
    deviation over all tokens of the steps before: nothing (paper), subtract the mean, or divide by
    the deviation, too. The moments are part of the checkpoint
    """

    diagnostics_freq: int = 0
    """
    Every how many steps with a teacher (the first one, too) metrics.jsonl gets a line with each
    block's cosine to the teacher and with the angle and the ratio of the alignment's gradient and
    the NLL's at the aligned block; 0: never
    """

    pairs: list[str] = field(default_factory=list)
    """
    "TEACHER_LAYER:STUDENT_BLOCK:WEIGHT" each, e.g. "last:3:1.0,middle:6:0.5", or a pairing by name
    and its weight: "L2E", "L2M", "L2L", "M2E", "M2M", "M2L", e.g. "L2E:1.0". The teacher is its
    "last" or "middle" layer; the student's E is block let.k, M block round(n / 2), L block n.
    Overrides let.k (but for E) and teacher.layer
    """


@dataclass
class Teacher:
    checkpoint: str = ""
    """The teacher: a Hugging Face hub id, a local folder, or a .gguf file"""

    revision: str = ""
    """Branch, tag or commit of a hub id; "": its main branch as it is"""

    layer: int | Literal["last", "middle"] = "last"
    """
    Which of its hidden states: "last" is the output of the final norm; a number is that block's
    output (from 1), before any final norm; "middle" is block round(n_blocks / 2)
    """

    placement: Literal["auto", "shard", "node", "replicate"] = "auto"
    """
    "shard": FSDP2 over the ranks that shard the student, block by block. "node": likewise over all
    ranks of each node (of a pipeline's stage), with a copy on every node, so that no weight travels
    between nodes. "replicate": whole on every rank. "auto": replicate below 1 GiB of weights or
    without ranks that shard the student, else shard
    """

    pipeline: Literal["owner", "all"] = "owner"
    """
    Who reads for the teacher under pipeline parallelism. "owner": the ranks that hold an aligned
    block, and the others wait. "all": each rank of the pipeline an equal share of the rows, whose
    states it hands to the owner; the teacher is on all of them
    """

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """dtype of the teacher's weights and hidden states"""

    float8: bool = False
    """
    Multiply in float8 in the teacher's linear layers (compute capability 8.9 or later), weights and
    states as in teacher.dtype; recipe and emulation are [quantize.linear.float8]'s
    """

    compile: bool = True
    """
    Compile the teacher's blocks if compile.enable is set, whatever compile.components say of the
    student, and with the same backend
    """

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint; leave it off unless you have read it"""

    cache: str = ""
    """
    Folder for the teacher's states of this run's sequences, in bfloat16, on a file system that all
    ranks share. The run writes what is missing there; if nothing is, no teacher is loaded and the
    states are read. A folder is for one teacher, tokenizer and order of data. "": none
    """

    tokenizer: Literal["same", "align"] = "same"
    """
    "same": the student trains on the teacher's vocabulary. "align": the teacher reads the same text
    with the tokenizer in its own checkpoint, and each student token is aligned with the last of the
    teacher's tokens that ends, in bytes, at or before its own end
    """

    @property
    def source(self) -> tuple[str, bool, str]:
        """What reads a teacher's files takes these: checkpoint, trust_remote_code, revision."""
        return self.checkpoint, self.trust_remote_code, self.revision


@dataclass
class Distill:
    method: Literal["none", "rkd", "salt"] = "none"
    """
    Distillation through logits in place of LET. "rkd": the teacher's soft labels throughout.
    "salt": until step n_kd, then plain training (arXiv 2410.18779); see select_of
    """

    weight: float = 0.5
    """Weight of the KL, in (0, 1]; the NLL has the rest"""

    temperature: float = 1.0
    """Of both distributions; the KL is multiplied by its square"""

    direction: Literal["forward", "reverse"] = "forward"
    """"forward": KL(teacher || student), soft labels. "reverse": KL(student || teacher)"""

    n_kd: int = 0
    """Step after which "salt" has no teacher, 1..training.steps"""

    select_of: int = 1
    """
    SALT-DS: until n_kd each step draws this many times its sequences, and of each this many trains
    on the one that is challenging for the teacher, yet learnable; 1: on all, as they come
    """

    select_top_k: int = 10
    """A token is learnable where it is among this many of the teacher's first choices"""


@dataclass
class Export:
    enable: bool = False
    """Write the last checkpoint as a Hugging Face folder at the end (python -m let_titan.export)"""

    folder: str = "export"
    """Below job.dump_folder; the model is written to its step-N"""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that are written"""


@dataclass
class LetJobConfig(JobConfig):
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    let: Let = field(default_factory=Let)
    teacher: Teacher = field(default_factory=Teacher)
    distill: Distill = field(default_factory=Distill)
    data: Data = field(default_factory=Data)
    export: Export = field(default_factory=Export)

    def maybe_log(self) -> None:
        """As torchtitan, which would also save the file: before this run has its folder's lock."""
        if self.job.print_config:
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
            logger.info(f"Running with configs: {text}")


def distills(config: LetJobConfig) -> bool:
    """Whether the student learns from the teacher's logits ([distill]) in the place of LET."""
    return config.distill.method != "none"


def compiles(config: LetJobConfig, part: str) -> bool:
    """Whether ``part`` of the student, "model" or "loss", is compiled."""
    return config.compile.enable and part in config.compile.components


def compiles_teacher(config: LetJobConfig) -> bool:
    """Whether a teacher's blocks are compiled, which are never tensor-parallel."""
    return config.compile.enable and config.teacher.compile
