"""Figures of a paper from trained models, one module and one command each: ``avseg figures``."""
