"""Predict the masks of the sounding objects in a video.

``predict`` is the entry point. ``sampling`` reads the model input from the video, ``frame_stream`` runs the model,
``record`` holds the masks and ``result`` adds methods to it; :mod:`avseg.outputs` writes them to files.
"""
