"""model.converters: low precision, by keys that go together."""

from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles
from let_titan.errors import ConfigError

FLOAT8 = "quantize.linear.float8"
MXFP8 = "quantize.linear.mx"


def converter_mistakes(config: LetJobConfig) -> Mistakes:
    """What the converters' own keys say, on any machine."""
    converters, float8 = config.model.converters, config.quantize.linear.float8
    for converter in converters:
        if "grouped_mm" in converter:
            yield ConfigError(
                f"model.converters has {converter!r}, which is for experts, and the student has "
                f"none: write {FLOAT8!r}."
            )
    if FLOAT8 not in converters:
        return
    if MXFP8 in converters:
        yield ConfigError(f"model.converters has {FLOAT8!r} and {MXFP8!r}: keep one.")
    if float8.recipe_name is not None and float8.enable_fsdp_float8_all_gather:
        yield ConfigError(
            "quantize.linear.float8.enable_fsdp_float8_all_gather = true does not go with "
            f"recipe_name = {float8.recipe_name!r}: leave one of them out."
        )
    if float8.emulate and compiles(config, "model"):
        yield ConfigError(
            "quantize.linear.float8.emulate = true cannot be compiled: set compile.enable = false."
        )
    if float8.emulate and float8.recipe_name is not None:
        yield ConfigError(
            "quantize.linear.float8.emulate = true is lost with recipe_name = "
            f"{float8.recipe_name!r}: leave one of them out."
        )
