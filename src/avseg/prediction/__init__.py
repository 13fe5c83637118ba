"""From a video file to the masks of what sounds in it.

``predict`` asks, ``walk`` goes through the video, ``result`` holds the answer; ``draw``, ``summary`` and ``export``
show and write it.
"""
