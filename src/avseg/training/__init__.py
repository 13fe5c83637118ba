"""Training of a model: the loop, its checkpoints, its sampler and its curves."""
