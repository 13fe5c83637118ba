"""Synthetic clips: objects with sounds are selected, placed, moved, occluded and mixed.

A *stock* (:class:`~avseg.synthesis.scene.Stock`) provides objects and their sounds: rendered sprites for ``synthetic``,
a user's own cut-outs and recordings for ``avseg data compose``. ``script`` decides which object sounds when, ``stage``
where everything is, ``sound_mix`` mixes the audio; ``scene`` combines frames, masks and waveform.
"""
