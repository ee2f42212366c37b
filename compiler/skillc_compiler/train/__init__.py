"""Training: the embedded base and its compiler, from generated skills."""
