"""``avseg app``: drop a video into a page of the browser, and look at the masks of one or several models.

:mod:`avseg.app.sessions` holds the files of the users, :mod:`avseg.app.runs` predicts; neither needs the extra ``app``.
:mod:`avseg.app.layout` is the page in Gradio, :mod:`avseg.app.server` serves it and the results.
"""
