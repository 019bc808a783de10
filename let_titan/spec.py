"""Registers the student and its parts with torchtitan as the model ``let_llama``."""

import os

from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.lr_scheduler import build_lr_schedulers
from torchtitan.components.optimizer import build_optimizers
from torchtitan.config import JobConfig
from torchtitan.models.llama3.model.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.train_spec import TrainSpec, register_train_spec

from let_titan.build_data import build_dataloader, register_pile
from let_titan.checks import MODEL_NAME
from let_titan.config import LetJobConfig
from let_titan.let.teacher_tokenizer import teacher_text_of_run
from let_titan.run.metrics import build_let_metrics_processor
from let_titan.student import FLAVORS, LetModelArgs, LetTransformer, parallelize_student
from let_titan.student.pipeline import build_loss, pipeline_student
from let_titan.tokenizer.build import RunTokenizer, load_tokenizer
from let_titan.upstream import is_registered
from let_titan.validator import build_let_validator


def build_tokenizer(job_config: JobConfig) -> RunTokenizer:
    return load_tokenizer(job_config.model.hf_assets_path)


def build_loader(
    dp_world_size: int,
    dp_rank: int,
    tokenizer: RunTokenizer,
    job_config: LetJobConfig,
    infinite: bool = True,
) -> BaseDataLoader:
    teacher = teacher_text_of_run(job_config, tokenizer)
    return build_dataloader(dp_world_size, dp_rank, tokenizer, job_config, infinite, teacher)


def build_adapter(model_args: LetModelArgs, hf_assets_path: str | None) -> Llama3StateDictAdapter:
    """Builds torchtitan's adapter, which looks for weights beside the tokenizer, if in a folder."""
    is_folder = hf_assets_path is not None and os.path.isdir(hf_assets_path)
    return Llama3StateDictAdapter(model_args, hf_assets_path if is_folder else None)


def register() -> None:
    """Adds ``let_llama`` and the ``pile`` data set to torchtitan's tables; safe to call again."""
    register_pile()
    if is_registered(MODEL_NAME):
        return
    register_train_spec(
        MODEL_NAME,
        TrainSpec(
            model_cls=LetTransformer,
            model_args=FLAVORS,
            parallelize_fn=parallelize_student,
            pipelining_fn=pipeline_student,
            build_optimizers_fn=build_optimizers,
            build_lr_schedulers_fn=build_lr_schedulers,
            build_dataloader_fn=build_loader,
            build_tokenizer_fn=build_tokenizer,
            build_loss_fn=build_loss,
            build_validator_fn=build_let_validator,
            build_metrics_processor_fn=build_let_metrics_processor,
            state_dict_adapter=build_adapter,
        ),
    )
