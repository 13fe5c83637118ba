"""The figures of a paper from a trained model, one module and one command each: ``avseg figures``."""
