"""Synthetic clips: objects with sounds are selected, placed, moved, occluded and mixed.

A *stock* (:class:`~avseg.synthesis.scene.SceneStock`) provides objects and their sounds: rendered sprites for
``synthetic``, a user's own cut-outs and recordings for ``avseg data compose``. ``script`` samples which object sounds
when, ``stage`` its position and motion, ``sound_mix`` mixes the audio; ``scene`` combines frames, masks and waveform.
"""
