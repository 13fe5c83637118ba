"""Predict one video, many videos or the rows of a table, and write the outputs.

``predict`` loads the model, runs :mod:`avseg.prediction` on a video and writes its record with :mod:`avseg.outputs`;
``result`` is the record with methods for users, and ``batch`` predicts many videos with one model.
"""
