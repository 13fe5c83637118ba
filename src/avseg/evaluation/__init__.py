"""Scoring a checkpoint on a data set, with its own audio and with negative audio."""
