"""torchtitan's own trainer and Transformer, with the student's arguments and our loader."""

import torchtitan.protocols.train_spec as train_specs
from torchtitan.components.metrics import build_metrics_processor
from torchtitan.models.llama3 import Transformer, parallelize_llama
from torchtitan.train import Trainer

from let_titan.config import LetJobConfig
from let_titan.spec import register
from let_titan.student.parallelize import sum_in_reduce_scatter
from let_titan.upstream import is_registered

PLAIN = "plain_llama"


def parallelize_plain(model, parallel_dims, job_config):
    model = parallelize_llama(model, parallel_dims, job_config)
    sum_in_reduce_scatter(model)  # what gloo needs; the numbers are the same
    return model


def plain_trainer(config: LetJobConfig) -> Trainer:
    """Builds torchtitan's Trainer for the student of ``config``; nothing of LET is in it."""
    register()
    if not is_registered(PLAIN):
        spec = train_specs.get_train_spec("let_llama")
        plain = {
            **vars(spec),
            "model_cls": Transformer,
            "parallelize_fn": parallelize_plain,
            "build_metrics_processor_fn": build_metrics_processor,
            "build_validator_fn": None,
        }
        train_specs.register_train_spec(PLAIN, train_specs.TrainSpec(**plain))
    config.model.name = PLAIN
    return Trainer(config)
