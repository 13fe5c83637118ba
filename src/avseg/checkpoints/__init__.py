"""Save, load and convert the weights of models."""
