"""Outputs of the sounding intervals: csv, srt, edl."""

import csv
import re
from fractions import Fraction

import numpy as np
import pytest

from avseg.errors import ConfigError
from avseg.outputs.edl import Edl, _union
from avseg.pipeline.result import Result
from avseg.prediction.record import Interval


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv(make_clip, tmp_path):
    folder = make_clip().save(tmp_path / "out", ["csv"])
    assert rows(folder / "intervals.csv") == [
        {"start": "0.05", "end": "0.8", "class": "dog", "object": "", "object_score": ""},
        {"start": "0.4", "end": "0.9", "class": "siren", "object": "", "object_score": ""},
    ]
    regions = rows(folder / "regions.csv")
    assert [(row["frame"], row["class"]) for row in regions] == [
        ("1", "dog"),
        ("2", "dog"),
        ("3", "dog"),
        ("3", "siren"),
        ("4", "siren"),
    ]
    first = {"frame": "1", "time": "0.05", "class": "dog", "score": "0.9", "area": "1600"}
    assert regions[0] == first | {"x": "30", "y": "20", "width": "40", "height": "40"}


def test_names_of_objects(make_named, tmp_path):
    folder = make_named().save(tmp_path / "out", ["csv", "srt", "edl", "json", "npz"])
    assert rows(folder / "intervals.csv") == [
        {"start": "0.05", "end": "0.8", "class": "sounding", "object": "wolf", "object_score": "0.6"}
    ]
    assert (folder / "intervals.srt").read_text() == "1\n00:00:00,050 --> 00:00:00,800\nwolf\n"
    assert "* COMMENT: wolf\n" in (folder / "intervals.edl").read_text()
    with np.load(folder / "result.npz") as archive:
        assert archive["interval_objects"].tolist() == ["wolf"]
    loaded = Result.load(folder)
    assert (loaded.objects, loaded.captions) == ([("wolf", 0.6)], ["wolf"])
    assert [frame.objects for frame in loaded.frames] == [frame.objects for frame in make_named().frames]


def test_srt(make_clip, tmp_path):
    folder = make_clip().save(tmp_path / "out", ["srt"])
    assert (folder / "intervals.srt").read_text() == (
        "1\n00:00:00,050 --> 00:00:00,800\ndog\n\n2\n00:00:00,400 --> 00:00:00,900\nsiren\n"
    )


def events(text):
    """Read the events of an edit decision list: numbers of the frames, at 25 frames per second."""
    found = []
    for line in text.splitlines():
        if event := re.fullmatch(r"(\d{3})  AX       B     C        ((?:\d\d:\d\d:\d\d:\d\d ?){4})", line):
            codes = [[int(n) for n in code.split(":")] for code in event[2].split()]
            found.append([((h * 60 + m) * 60 + s) * 25 + f for h, m, s, f in codes])
    return found


def edl(make_clip, tmp_path, intervals, monkeypatch, rate=Fraction(25), **settings):
    result = make_clip()
    output = Edl(result, tmp_path, Edl.Config(**settings))
    monkeypatch.setattr(output, "_rate", rate)
    monkeypatch.setitem(vars(result), "intervals", intervals)
    output.finish()
    return (tmp_path / "intervals.edl").read_text()


INTERVALS = [Interval(1.0, 2.0, "dog"), Interval(1.5, 2.52, "siren"), Interval(61.0, 62.0, "dog")]


def test_edl_has_one_event_per_stretch(make_clip, tmp_path, monkeypatch):
    text = edl(make_clip, tmp_path, INTERVALS, monkeypatch)
    assert text.startswith("TITLE: clip\nFCM: NON-DROP FRAME\n")
    assert "* FROM CLIP NAME: clip.mkv\n* COMMENT: dog, siren\n" in text
    assert events(text) == [[25, 63, 25, 63], [1525, 1550, 1525, 1550]]


def test_edl_joins_the_stretches(make_clip, tmp_path, monkeypatch):
    text = edl(make_clip, tmp_path, INTERVALS, monkeypatch, placement="joined")
    assert events(text) == [[25, 63, 0, 38], [1525, 1550, 38, 63]]


def test_edl_counts_frames_at_a_fractional_rate(make_clip, tmp_path, monkeypatch):
    """An hour of 30000/1001 frames per second has 107 892 frames: timecode 00:59:56:12 without drop frames."""
    text = edl(make_clip, tmp_path, [Interval(0.0, 3600.0, "dog")], monkeypatch, Fraction(30_000, 1001))
    assert "00:00:00:00 00:59:56:12" in text


def test_edl_with_too_many_events_is_refused(make_clip, tmp_path, monkeypatch):
    many = [Interval(k, k + 0.5, "dog") for k in range(1000)]
    with pytest.raises(ConfigError, match="1000 sounding stretches, an edit decision list holds 999"):
        edl(make_clip, tmp_path, many, monkeypatch)


def test_union_of_nothing_is_nothing():
    assert _union([]) == []
