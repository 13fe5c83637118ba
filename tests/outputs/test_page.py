import base64
import dataclasses
import hashlib
import json
import re
from fractions import Fraction
from html.parser import HTMLParser
from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from avseg.colours import colour
from avseg.media import rle
from avseg.media.video import pictures, probe
from avseg.outputs import page
from avseg.outputs._page_parts import spectrogram, spectrogram_png, steps, ticks
from avseg.pipeline.result import Result
from avseg.prediction.regions import Frame, Region
from avseg.prediction.uncertainty import pack

SIZE = (60, 90)
TIMES = [0.0, 0.2, 0.4, 0.6, 1.0]
NAMES = ("background", "dog", "</script><script>alert(1)</script>")
EMBEDDED = "data:video/mp4;base64,"


class Elements(HTMLParser):
    """Collect the elements of a page: name, attributes and text up to the next tag."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_data(self, data):
        if self.found:
            self.found[-1][2].append(data)

    def all(self, tag):
        return [(attributes, "".join(text).strip()) for name, attributes, text in self.found if name == tag]

    def by_id(self, name):
        ((attributes, text),) = [(a, "".join(t)) for _, a, t in self.found if a.get("id") == name]
        return attributes, text


def region(label, part):
    mask = np.zeros(SIZE, bool)
    mask[part] = True
    return Region(label, 0.8, rle.encode(mask))


@pytest.fixture
def result(make_video, make_beep):
    """A dog from the second frame on, one more class from the fourth on; a tone from 0.4 s to 0.8 s."""
    path = make_video("clip & <b>.mkv", times=TIMES, size=SIZE, sound=make_beep(1.5, 0.4, 0.8))
    dog, other = region(1, np.s_[10:40, 10:30]), region(2, np.s_[20:50, 50:80])
    regions = [(), (dog,), (dog,), (dog, other), (dog, other)]
    frames = [Frame(time, found) for time, found in zip(TIMES, regions, strict=True)]
    return Result(path, SIZE, NAMES, frames, 1.4, "tiny", {"damaged": "error", "fps": 1.0}, ("<i>a note</i>",))


def saved(result, folder, outputs=("page",)):
    return Elements((result.save(folder, outputs) / "page.html").read_text(encoding="utf-8"))


def data_of(elements):
    return json.loads(elements.by_id("data")[1])


def test_page_refers_to_nothing_outside(result, tmp_path):
    elements = saved(result, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["page.html"]
    references = [a[key] for _, a, _ in elements.found for key in ("src", "href", "data", "poster") if key in a]
    assert references
    assert all(reference.startswith("data:") for reference in references)
    assert not elements.all("link")
    assert "url(" not in elements.all("style")[0][1]
    assert "@import" not in elements.all("style")[0][1]
    (policy,) = [a["content"] for a, _ in elements.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*?)</script>", (tmp_path / "out" / "page.html").read_text("utf-8"), re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "http" not in script


def test_page_escapes_names(result, tmp_path):
    elements = saved(result, tmp_path / "out")
    assert len(elements.all("script")) == 2
    assert elements.all("title")[0][1] == elements.all("h1")[0][1] == "clip & <b>.mkv"
    assert not elements.all("b")
    assert not elements.all("i")
    assert NAMES[2] in [text for attributes, text in elements.all("span") if attributes.get("class") == "swatch"]


def test_page_labels_its_controls(result, tmp_path):
    elements = saved(result, tmp_path / "out")
    assert elements.all("html")[0][0]["lang"] == "en"
    assert all(text.strip() for _, text in elements.all("button"))
    assert all(attributes["aria-label"] for attributes, _ in elements.all("input"))
    assert all(attributes["alt"] for attributes, _ in elements.all("img"))
    assert all("aria-label" in a or "aria-labelledby" in a for a, _ in elements.all("section"))
    assert elements.by_id("show-masks")[0]["aria-pressed"] == "true"
    assert "hidden" in elements.by_id("show-maps")[0]
    assert "controls" in elements.by_id("video")[0]  # for browsers without JavaScript


def test_embedded_video_has_every_frame_without_masks_and_the_sound(result, tmp_path):
    source = saved(result, tmp_path / "out").by_id("video")[0]["src"]
    assert source.startswith(EMBEDDED)
    content = base64.b64decode(source.removeprefix(EMBEDDED))
    assert 0 < content.find(b"moov") < content.find(b"mdat")  # plays before it is read completely
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    shown = list(pictures(path))
    assert [picture.time for picture in shown] == pytest.approx(TIMES, abs=1e-4)
    assert shown[1].rgb()[20, 20].tolist() == pytest.approx([25, 25, 25], abs=6)  # as it was: grey
    info = probe(path)
    assert (info.size, info.sample_rate) == (SIZE, 16_000)
    with av.open(str(path)) as container:
        assert {stream.codec_context.name for stream in container.streams} == {"h264", "aac"}


def test_masks_of_page_are_the_labels_at_its_size(result, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "LONGEST", 45)
    data = data_of(saved(result, tmp_path / "out"))
    assert data["size"] == [30, 44]
    assert data["times"] == TIMES
    assert [mask is None for mask in data["masks"]] == [False, False, True, False, True]  # equal to the one before
    labels = np.zeros((30, 44), int)
    for label, counts in data["masks"][3]:
        labels[rle.decode(rle.RLE((30, 44), counts.encode()))] = label
    expected = Image.fromarray(result.labels[3]).resize((44, 30), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(labels, np.asarray(expected))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert data["colours"][2] == list(colour(2))


def test_long_videos_have_fewer_masks(result, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_MASKS", 3)
    data = data_of(saved(result, tmp_path / "out"))
    assert data["times"] == [0.0, 0.4, 1.0]
    assert len(data["masks"]) == 3


def test_large_video_is_a_file_beside_the_page(result, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "EMBED_LIMIT", 0)
    elements = saved(result, tmp_path / "out")
    assert elements.by_id("video")[0]["src"] == "page.mp4"
    assert len(list(pictures(tmp_path / "out" / "page.mp4"))) == len(TIMES)


def test_page_links_to_the_other_outputs_and_result_json_lists_the_page(result, tmp_path):
    elements = saved(result, tmp_path / "out", ["json", "page", "masks", "summary"])
    found = [(attributes["href"], text) for attributes, text in elements.all("a")]
    assert found == [
        ("result.json", "result.json"),
        ("masks/000000.png", "masks/ (5 files)"),
        ("summary.png", "summary.png"),
    ]
    assert all((tmp_path / "out" / name).is_file() for name, _ in found)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["files"]["page"] == ["page.html"]


def test_page_lists_intervals_and_marks_them_on_the_timeline(result, tmp_path):
    elements = saved(result, tmp_path / "out")
    rows = [float(a["data-seek"]) for a, _ in elements.all("button") if "data-seek" in a]
    assert rows == [0.2, 0.6]
    bars = [attributes["style"] for attributes, _ in elements.all("span") if attributes.get("class") == "bar"]
    assert bars == [
        "left:14.286%;width:85.714%;background:#{:02x}{:02x}{:02x}".format(*colour(1)),
        "left:42.857%;width:57.143%;background:#{:02x}{:02x}{:02x}".format(*colour(2)),
    ]


def test_page_without_sound_or_objects(make_video, tmp_path):
    path = make_video("quiet.mkv", times=TIMES, size=SIZE)
    frames = [Frame(time, ()) for time in TIMES]
    silent = Result(path, SIZE, ("background", "sounding"), frames, 1.4, "tiny", {"damaged": "error"})
    elements = saved(silent, tmp_path / "out")
    assert [text for a, text in elements.all("p") if a.get("class") == "empty"] == [
        "no sound track",
        "no sounding object",
    ]
    assert "no sounding object" in [text for _, text in elements.all("td")]


def test_page_has_uncertainty_if_the_result_has(result, tmp_path):
    rising = np.repeat(np.float32([[0, 0.5, 1]]), 2, 0)
    uncertain = dataclasses.replace(result, frames=[Frame(f.time, f.regions, pack(rising)) for f in result.frames])
    elements = saved(uncertain, tmp_path / "out")
    assert "hidden" not in elements.by_id("show-maps")[0]
    data = data_of(elements)
    assert data["mapTimes"] == TIMES
    with Image.open(BytesIO(base64.b64decode(data["maps"][0]))) as image:
        assert np.asarray(image).tolist() == [[0, 128, 255]] * 2
    assert [a["aria-label"] for a, _ in elements.all("svg")][1] == "mean 0.50, largest 0.50"


def test_spectrogram_shows_a_tone_at_its_time_and_pitch(result):
    bands = spectrogram(result)
    assert bands.shape == (64, 140)  # 1.4 s in steps of 10 ms
    loud = bands > -2.0
    columns = np.flatnonzero(loud.any(0))
    assert (columns[0] + 1) / 100 == pytest.approx(0.4, abs=0.03)
    assert (columns[-1] + 1) / 100 == pytest.approx(0.8, abs=0.03)
    band = int(bands[:, 60].argmax())  # 997 Hz is mel 1000, band k is centred on mel 185 + (k + 1) * 40.8
    assert band == 19
    with Image.open(BytesIO(spectrogram_png(bands))) as image:
        levels = np.asarray(image)
    assert int(levels[:, 60].argmax()) == 63 - band


def test_spectrogram_of_a_long_video_averages_columns(result, monkeypatch):
    fine = spectrogram(result)
    monkeypatch.setattr("avseg.outputs._page_parts._COLUMNS", 50)
    coarse = spectrogram(result)
    assert coarse.shape == (64, 35)
    np.testing.assert_allclose(coarse[:, :32], fine[:, :128].reshape(64, 32, 4).mean(2), atol=1e-5)


def test_steps_are_constant_between_frames():
    path = steps(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.0, 1.0]), 1.0, 5.0)
    assert path == "M0,100V50H250V100H750V0H1000V100Z"


def test_steps_of_a_long_video_are_averaged(monkeypatch):
    monkeypatch.setattr("avseg.outputs._page_parts._COLUMNS", 2)
    path = steps(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, 1.0]), 0.0, 4.0)
    assert path == "M0,100V50H500V0H1000V100Z"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.5, 1.3, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]),
        (0.0, 3700.0, [0, 600, 1200, 1800, 2400, 3000, 3600]),
    ],
)
def test_ticks_are_round(start, end, expected):
    assert ticks(start, end) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((360, 640), 1, (360, 640)),
        ((1080, 1920), 1, (540, 960)),
        ((1920, 1080), 1, (960, 540)),
        ((101, 151), 1, (100, 152)),
        ((576, 720), Fraction(16, 15), (576, 768)),
        ((2, 3000), 1, (2, 960)),
    ],
)
def test_page_size_is_even_with_square_pixels(size, aspect, expected):
    assert page.page_size(size, Fraction(aspect)) == expected


def test_script_uses_every_element_of_the_page(result, tmp_path):
    elements = saved(result, tmp_path / "out")
    script = elements.all("script")[1][1]
    used = set(re.findall(r'find\("([\w-]+)"\)', script))
    assert used <= {attributes.get("id") for _, attributes, _ in elements.found}
