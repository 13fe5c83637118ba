"""Small media files of several containers and codecs, the base of mutated ones."""

import io
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (24, 32)
"""Height and width of the frames."""
_RATE = 16_000
VIDEOS = {
    "a.mp4": ("libx264", "yuv420p", "aac", "mono"),
    "b.mkv": ("ffv1", "yuv420p", "flac", "stereo"),
    "c.avi": ("mpeg4", "yuv420p", "pcm_s16le", "mono"),
    "d.ts": ("libx264", "yuv420p", "mp2", "mono"),
    "e.mov": ("mjpeg", "yuvj420p", "pcm_s16be", "stereo"),
    "f.nut": ("mpeg4", "yuv420p", "pcm_s16le", "mono"),
}
"""Name → codec, pixel format, codec of the sound and its layout."""


def videos() -> dict[str, bytes]:
    """Return name → content of small healthy videos, images and an animation."""
    found = {name: _video(name, *codecs) for name, codecs in VIDEOS.items()}
    picture = Image.fromarray(_image(3))
    for suffix in ("png", "gif", "tiff", "jpg"):
        content = io.BytesIO()
        picture.save(content, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
        found[f"image.{suffix}"] = content.getvalue()
    return found


def sound() -> bytes:
    """Return half a second of a tone as WAV."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(_tone(_RATE // 2).tobytes())
    return content.getvalue()


def _image(index: int) -> NDArray[np.uint8]:
    image = np.full((*SIZE, 3), 20 + 40 * index % 200, np.uint8)
    image[4:12, 4 + index : 12 + index] = (220, 60, 60)
    return image


def _tone(count: int) -> NDArray[np.int16]:
    return np.asarray(12_000 * np.sin(2 * np.pi * 440 / _RATE * np.arange(count))).astype(np.int16)


def _video(name: str, codec: str, pixels: str, sound_codec: str, layout: str) -> bytes:
    content = io.BytesIO()
    suffix = Path(name).suffix[1:]
    format_name = {"mkv": "matroska", "ts": "mpegts"}.get(suffix, suffix)
    with av.open(content, "w", format_name) as container:
        container.metadata["title"] = "attack"
        video: Any = container.add_stream(codec, rate=10)
        video.height, video.width = SIZE
        video.pix_fmt = pixels
        audio: Any = container.add_stream(sound_codec, rate=_RATE, layout=layout)
        for index in range(6):
            container.mux(video.encode(av.VideoFrame.from_ndarray(_image(index))))
        container.mux(video.encode(None))
        resampler = av.AudioResampler(audio.codec_context.format, layout, _RATE)
        frame = av.AudioFrame.from_ndarray(_tone(9_600)[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = _RATE, Fraction(1, _RATE), 0
        for piece in resampler.resample(frame):
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    return content.getvalue()
