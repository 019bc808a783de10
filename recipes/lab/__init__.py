"""The method lab: one setting, small enough for two CPU cores, in which recipes ask questions."""
