"""The page of ``avseg app`` in Gradio: upload, settings, progress, and the result of every model side by side."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from avseg.app.output_settings import Setting, component, read, settings_of
from avseg.app.runs import Outcome, Settings, StoppedError, run
from avseg.app.sessions import Sessions
from avseg.errors import AvsegError
from avseg.outputs import list_outputs

CSS = """
.avseg-results { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.avseg-results iframe { width: 100%; height: 64rem; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.avseg-results h2 { margin: 0 0 0.4rem; font-size: 1.05rem; overflow-wrap: anywhere; }
.avseg-results p { margin: 0 0 0.4rem; }
.avseg-error { color: var(--error-text-color, #b00020); }
"""
_CHOSEN = ("overlay", "json")
"""Outputs that are chosen at first."""
_NOT_OFFERED = ("page", "uncertainty")
"""Outputs that are written anyway: the page always, the uncertainty with its own setting."""
_LONGEST_QUEUE = 20
"""Users that may wait; the next one gets an error."""
_SMALLEST_STEP = 0.005
"""Share of the work between two reports of the progress."""
_SANDBOX = "allow-scripts allow-popups allow-popups-to-escape-sandbox allow-downloads"


def build(sessions: Sessions, models: Sequence[str], device: str) -> Any:
    """Return the page as ``gradio.Blocks``.

    Args:
        sessions: Files of the users.
        models: Names or folders of the models to choose from.
        device: Device of the models.
    """
    outputs = [name for name in list_outputs() if name not in _NOT_OFFERED]
    with gr.Blocks(title="avseg", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("# avseg\nMasks of the objects in a video that make sound.")
        with gr.Row():
            file = gr.File(label="Video", height=220, elem_id="video")
            with gr.Column():
                chosen = gr.CheckboxGroup(list(models), value=list(models[:1]), label="Models", elem_id="models")
                saved = gr.CheckboxGroup(outputs, value=list(_CHOSEN), label="Outputs to download", elem_id="outputs")
            with gr.Column():
                fps = gr.Number(1.0, label="Predictions per second of video", minimum=0.1, maximum=60)
                silence = gr.Checkbox(label="Accept a video without sound")
                uncertainty = gr.Checkbox(label="Show the uncertainty, with models that estimate it")
        groups, shown = _setting_groups(outputs)
        saved.change(lambda names: [gr.update(visible=name in names) for name in groups], saved, list(groups.values()))
        with gr.Row():
            start = gr.Button("Segment", variant="primary", elem_id="start")
            stop = gr.Button("Stop", elem_id="stop")
        view = gr.HTML(elem_id="results", min_height=120)
        gr.Markdown("The video is deleted when the run ends, the results when this page is closed.")
        parts = {"models": chosen, "outputs": saved, "fps": fps, "silence": silence, "uncertainty": uncertainty}
        _connect(blocks, sessions, device, file, parts, shown, start, stop, view)
    return blocks.queue(max_size=_LONGEST_QUEUE, default_concurrency_limit=1)


def results(token: str, outcomes: Sequence[Outcome]) -> str:
    """Return the results of all models as HTML, side by side where they fit."""
    return f'<div class="avseg-results">{"".join(_result(token, outcome) for outcome in outcomes)}</div>'


def _setting_groups(outputs: Sequence[str]) -> tuple[dict[str, Any], dict[Any, Setting]]:
    """Return the group of settings of every output that has any, and the setting of every component."""
    groups: dict[str, Any] = {}
    shown: dict[Any, Setting] = {}
    for name in outputs:
        if settings := settings_of(name):
            title, visible = f"Settings of {name}", name in _CHOSEN
            with gr.Accordion(title, open=False, visible=visible, elem_id=f"{name}-settings") as groups[name], gr.Row():
                shown |= {component(setting): setting for setting in settings}
    return groups, shown


def _connect(
    blocks: Any,
    sessions: Sessions,
    device: str,
    file: Any,
    parts: Mapping[str, Any],
    shown: Mapping[Any, Setting],
    start: Any,
    stop: Any,
    view: Any,
) -> None:
    def receive(path: str | None, request: gr.Request) -> str:
        return "" if path is None else _attempt(lambda: sessions.receive(_user(request), Path(path)))

    def drop(request: gr.Request) -> None:
        sessions.drop(_user(request))

    def leave(request: gr.Request) -> None:
        sessions.leave(_user(request))

    def cancel(request: gr.Request) -> None:
        sessions.stop(_user(request))

    def segment(
        values: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio recognises the progress by its default value
    ) -> tuple[str, Any]:
        given = {name: values[part] for name, part in parts.items()}
        settings = read(shown, values, given["outputs"])
        text, used = _segment(sessions, _user(request), Settings(**given, settings=settings, device=device), progress)
        return text, None if used else gr.skip()

    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    file.upload(receive, file, view, **at_once)
    file.clear(drop, None, None, **at_once)
    start.click(segment, {*parts.values(), *shown}, [view, file], show_progress_on=[view], api_visibility="private")
    stop.click(cancel, None, None, **at_once)
    blocks.unload(leave)


def _segment(sessions: Sessions, user: str, settings: Settings, progress: gr.Progress) -> tuple[str, bool]:
    """Run, and return the results or the reason why there are none as HTML, and whether the upload is used up."""
    if not settings.models:
        return _alert("there is no model: choose at least one"), False
    try:
        settings.chosen_outputs()
    except AvsegError as error:
        return _alert(str(error)), False
    shown = -1.0

    def report(share: float, step: str) -> None:
        nonlocal shown
        if not 0 <= share - shown < _SMALLEST_STEP:
            progress(share, desc=step)
            shown = share

    try:
        return results(*run(sessions, user, settings, report)), True
    except StoppedError:
        return _alert("stopped: upload the video again for another run"), True
    except AvsegError as error:
        return _alert(str(error)), True


def _attempt(action: Callable[[], None]) -> str:
    try:
        action()
    except AvsegError as error:
        return _alert(str(error))
    return ""


def _result(token: str, outcome: Outcome) -> str:
    name = escape(outcome.model)
    if outcome.error is not None:
        return f"<section><h2>{name}</h2>{_alert(outcome.error)}</section>"
    page, archive = (f"results/{token}/{quote(str(path))}" for path in (outcome.page, outcome.archive))
    return (
        f'<section><h2>{name}</h2><p><a href="{archive}" download>Download all files</a> · '
        f'<a href="{page}" target="_blank" rel="noopener">Open the page alone</a></p>'
        f'<iframe src="{page}" title="Result of {name}" allow="fullscreen" sandbox="{_SANDBOX}"></iframe></section>'
    )


def _alert(text: str) -> str:
    return f'<p class="avseg-error" role="alert">{escape(text)}</p>'


def _user(request: gr.Request) -> str:
    """Return the key of a user: Gradio gives every open page its own."""
    return str(request.session_hash)
