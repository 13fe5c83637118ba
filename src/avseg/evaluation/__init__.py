"""Evaluation of a model on a data set, with its audio and with negative audio."""
