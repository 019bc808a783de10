"""The one exception for mistakes in the input."""


class ConfigError(ValueError):
    """A mistake in the user's input: one sentence that names the value and the cure.

    ``let_titan.train.main`` prints it on rank 0 and exits with 2, without a traceback.
    """
