"""Predict the videos of a table row by row, for Ray Data and other frameworks that map a callable over rows."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avseg.interface import AVSModel
from avseg.outputs import choose_outputs
from avseg.outputs.json import to_dict
from avseg.pipeline.batch import reason, unique_folder
from avseg.pipeline.predict import predict_file, ready
from avseg.pipeline.result import Result
from avseg.prediction.frame_stream import Options


class RowPredictor:
    """Callable that maps a row with the path of a video to a row with its prediction; rows never hold pixels.

    Each worker creates one instance, which loads the model once::

        paths = ray.data.from_items([{"path": "a.mp4"}, {"path": "b.mp4"}])
        rows = paths.map(avseg.RowPredictor, fn_constructor_kwargs={"model": "small", "fps": 2}, concurrency=4)
        rows.write_parquet("predictions")

    A row has the columns of its input and:

    - ``error``: reason in one line if the video cannot be used, else empty; the other columns are empty then.
    - ``times``, ``scores``: start in seconds and score of every frame.
    - ``interval_start``, ``interval_end``, ``interval_name``, ``interval_object``: one entry per interval; the
      object is empty where it has no name.
    - ``result``: the content of result.json (format 1) with all masks as run lengths, or the folder of the result if
      ``output`` is given.

    Args:
        model: See :func:`avseg.predict`.
        output: Folder for results, on a file system that all workers share; None keeps the masks in the rows. A folder
            from an earlier attempt at the same row is replaced.
        save: Outputs to write if ``output`` is given, see :func:`avseg.outputs.choose_outputs`.
        path_column: Column with the path of the video.
        device: Device of the model.
        **settings: Fields of :class:`avseg.prediction.frame_stream.Options`, such as ``fps``.

    Raises:
        ConfigError: When a setting is invalid.
        CheckpointError: When the model cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path | AVSModel = "small",
        *,
        output: str | Path | None = None,
        save: str | Iterable[str] | None = None,
        path_column: str = "path",
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        self._options = Options(**settings)
        self._outputs = choose_outputs(save, uncertainty=self._options.show == "uncertainty")
        self._output = None if output is None else Path(output)
        self._column = path_column
        self._loaded = ready(model, device, self._options.modes)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row with the columns of the prediction."""
        path = Path(str(row[self._column]))
        try:
            result = predict_file(path, self._loaded, self._options, lambda _: None)
            kept = self._keep(result)
        except Exception as error:  # one bad video must not end the job of a cluster
            return {**row, **_columns(None, reason(error), "")}
        return {**row, **_columns(result, "", kept)}

    def _keep(self, result: Result) -> str:
        if self._output is None:
            return json.dumps(to_dict(result), ensure_ascii=False)
        return str(result.save(unique_folder(self._output, result.source), self._outputs, overwrite=True))


def _columns(result: Result | None, error: str, kept: str) -> dict[str, Any]:
    intervals = [] if result is None else result.intervals
    return {
        "error": error,
        "times": [] if result is None else result.times.tolist(),
        "scores": [] if result is None else result.scores.tolist(),
        "interval_start": [interval.start for interval in intervals],
        "interval_end": [interval.end for interval in intervals],
        "interval_name": [interval.name for interval in intervals],
        "interval_object": [] if result is None else ["" if found is None else found.name for found in result.objects],
        "result": kept,
    }
