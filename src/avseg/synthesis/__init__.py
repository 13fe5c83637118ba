"""Where clips are made: things with their sounds are cast, placed, moved, hidden and heard.

A *stock* (:class:`~avseg.synthesis.scene.Stock`) offers things and their sounds: drawn ones for ``synthetic``, a user's
own cut-outs and recordings for ``avseg data compose``. ``script`` decides who sounds when, ``stage`` where everything
is, ``mix`` how it sounds; ``scene`` puts frames, masks and waveform together.
"""
