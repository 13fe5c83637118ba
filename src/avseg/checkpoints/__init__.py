"""Saving, loading and converting the weights of models."""
