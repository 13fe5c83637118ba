"""From a video to the record of its masks.

``sampling`` reads the model input from the video, ``frame_stream`` runs the model, ``regions`` enlarges and encodes the
masks, and ``record`` holds them. :mod:`avseg.pipeline` has the entry points.
"""
