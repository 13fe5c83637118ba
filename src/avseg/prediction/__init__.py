"""From a video file to the masks of what sounds in it.

``predict`` is the entry point, ``frame_stream`` runs the model over the video, ``result`` holds the masks; ``draw``,
``summary`` and ``export`` show and write them.
"""
