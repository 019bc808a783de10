"""Which block, how strongly, how long: short runs of one config, and what their gradients say."""
