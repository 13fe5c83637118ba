"""The commands ``avseg data check``, ``prepare`` and ``compose``: inspect and make data sets on disk."""
