"""``avseg app``: a page in the browser that shows the masks of one or several models for a video.

:mod:`avseg.app.sessions` holds the files of the users, :mod:`avseg.app.runs` predicts; neither needs the extra ``app``.
:mod:`avseg.app.layout` is the page in Gradio, :mod:`avseg.app.server` serves it and the results.
"""
