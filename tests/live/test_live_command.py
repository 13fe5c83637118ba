"""``avseg live`` without a window: devices of FFmpeg's filters, a file at its own speed, pipes, the page over HTTP."""

import io
import json
import os
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

import avseg
from avseg.cli import main
from avseg.errors import ConfigError, MediaError
from avseg.live.command import open_source
from avseg.live.mjpeg_page import LivePage
from avseg.media.container import refuse
from avseg.media.live import device_feed
from avseg.model_folder import save

CAMERA, MICROPHONE = "lavfi:testsrc2=size=96x64:rate=10,realtime", "lavfi:sine=frequency=440,arealtime"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    model = avseg.build("pcmanet", visual="pvt_v2_b0", audio="compact", train_audio=True, channels=8)
    return str(save(model, tmp_path_factory.mktemp("live") / "tiny", data={"name": "synthetic", "size": 32}))


@pytest.fixture
def video(make_video, make_beep):
    times = [k / 10 for k in range(12)]
    return make_video("clip.mkv", times=times, size=(64, 96), sound=make_beep(1.2, 0, 1.2))


def lines(capsys):
    found = capsys.readouterr()
    return [json.loads(line) for line in found.out.splitlines()], found.err


def check(rows, errors):
    assert rows
    assert all(set(row) == {"time", "latency", "sound_dbfs", "regions"} for row in rows)
    assert f"avseg: {len(rows)} predictions" in errors


@pytest.mark.slow
def test_camera_and_microphone(tiny, capsys):
    words = ["--camera", CAMERA, "--microphone", MICROPHONE, "--seconds", "1", "--model", tiny]
    assert main(["live", "--display", "lines", "--threshold", "0.01", *words]) == 0
    rows, errors = lines(capsys)
    check(rows, errors)
    assert rows[-1]["sound_dbfs"] > -30


@pytest.mark.slow
def test_file_at_its_own_speed(tiny, video, capsys):
    assert main(["live", str(video), "--display", "lines", "--threshold", "0.01", "--model", tiny]) == 0
    rows, errors = lines(capsys)
    check(rows, errors)
    assert rows[-1]["regions"][0]["box"] == [0, 0, 96, 64]
    assert rows[-1]["regions"][0]["area"] == 96 * 64


def test_standard_input(tiny, video, capsys):
    before = os.dup(0)
    try:
        with video.open("rb") as file:
            os.dup2(file.fileno(), 0)
            assert main(["live", "-", "--display", "lines", "--model", tiny]) == 0
    finally:
        os.dup2(before, 0)
        os.close(before)
    check(*lines(capsys))


def test_named_pipe(tiny, video, tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(video.read_bytes()), daemon=True)
    writer.start()
    assert main(["live", str(pipe), "--display", "lines", "--model", tiny]) == 0
    writer.join()
    check(*lines(capsys))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--camera", "v4l2:/dev/no_video"], "cannot open the camera /dev/no_video with v4l2 (No such file"),
        (["--camera", "nothing:0"], "FFmpeg has no input 'nothing' for a camera"),
        (["--camera", "camera"], "a camera is given as FORMAT:NAME, such as v4l2:/dev/video0"),
        (["--camera", MICROPHONE], "gives no pictures"),
        (["--camera", CAMERA, "--microphone", CAMERA], "gives no sound"),
        (["--camera", CAMERA, "--microphone", "none"], "has no sound: give a source with sound"),
        (["missing.mp4"], "no such file: missing.mp4"),
        (["missing.mp4", "--camera", CAMERA], "a source is given: leave out --camera and --microphone"),
        (["missing.mp4", "--seconds", "0"], "seconds must be a number above 0"),
        (["missing.mp4", "--lookahead", "2"], "lookahead must be from 0 to 0.4875 s"),
    ],
)
def test_mistakes_are_one_line(words, message, tiny, capsys):
    assert main(["live", "--display", "lines", "--model", tiny, *words]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert message in found.err
    assert found.err.count("\n") == 1


def test_no_default_camera(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigError, match="give --camera and --microphone"):
        open_source(None, None, None, refuse)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every file")
def test_camera_without_permission(tmp_path):
    device = tmp_path / "video0"
    device.touch(mode=0)
    with pytest.raises(MediaError, match=r"Permission denied\): give this user access to it"):
        device_feed(f"v4l2:{device}", None)


def get(address):
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


@pytest.mark.slow
def test_page_shows_every_picture_and_its_text():
    image = np.full((48, 64, 3), 200, np.uint8)
    with LivePage(0) as page:
        assert b"<img" in get(page.address)
        with urllib.request.urlopen(page.address + "pictures", timeout=30) as shown:
            for level in (200, 40):
                page.show(np.full_like(image, level), f"level {level}")
                assert shown.readline() == b"--avseg\r\n"
                assert shown.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(shown.readline().split()[1])
                assert shown.readline() == b"\r\n"
                picture = Image.open(io.BytesIO(shown.read(length)))
                assert picture.size == (64, 48)
                assert abs(int(np.asarray(picture).mean()) - level) < 3
                assert shown.readline() == b"\r\n"
                assert json.loads(get(page.address + "status")) == {"text": f"level {level}", "ended": False}


def test_page_has_a_secret_address():
    with LivePage(0) as page:
        root = page.address.rsplit("/", 2)[0]
        for path in ("/", "/pictures", "/guess/pictures"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(root + path)


def test_port_in_use():
    with LivePage(0) as page, pytest.raises(ConfigError, match="choose another --port"):
        LivePage(int(page.address.split(":")[2].split("/")[0]))


@pytest.mark.slow
def test_page_of_a_run(tiny, video, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(LivePage, "show", lambda _, image, text: shown.append((image.shape, text)))
    assert main(["live", str(video), "--port", "0", "--threshold", "0.01", "--model", tiny]) == 0
    assert "avseg: open http://127.0.0.1:" in capsys.readouterr().out
    assert {shape for shape, _ in shown} == {(64, 96, 3)}
    assert all(" dBFS · latency " in text for _, text in shown)
