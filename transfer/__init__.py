"""Motion of a head: from a driver or a preset to the target, in parameters."""
