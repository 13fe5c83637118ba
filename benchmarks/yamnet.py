"""YAMNet, the teacher of ``benchmarks/distill_audio.py``: its outputs, and its weights as a PyTorch network.

Source: the int8 TensorFlow Lite file of YAMNet (Google, Apache-2.0), which takes 15,600 samples at 16 kHz.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from avseg.errors import CheckpointError, ConfigError
from avseg.mel import PATCH_SAMPLES
from avseg.nn.mobile_audio import AUDIOSET_CLASSES, MobileAudio

EMBEDDING = 1024
"""Size of the embedding of YAMNet."""

_ROOT = "yamnet_frames"


class Outputs(NamedTuple):
    """The outputs of a teacher for some windows.

    Attributes:
        embedding: (N, 1024) float32.
        logits: (N, 521) float32, before the sigmoid.
    """

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]


class Yamnet:
    """YAMNet as a TensorFlow Lite file.

    Args:
        path: ``yamnet.tflite``.

    Raises:
        ConfigError: When the package ``ai-edge-litert`` is not installed.
        CheckpointError: When the file is missing or is another network.
    """

    def __init__(self, path: Path) -> None:
        self._interpreter = _interpreter(path)
        self._at = {d["name"]: d["index"] for d in self._interpreter.get_tensor_details()}
        names = f"{_ROOT}/global_average_pooling2d/Mean", f"{_ROOT}/dense/BiasAdd"
        if not {"input_1", *names} <= set(self._at):
            raise CheckpointError(f"{path} has no tensors {names}: give the TensorFlow Lite file of YAMNet")
        self._embedding, self._logits = (self._at[name] for name in names)

    def __call__(self, waves: NDArray[np.float32]) -> Outputs:
        """Return the outputs for windows (N, 15600) at 16 kHz."""
        embedding = np.zeros((len(waves), EMBEDDING), np.float32)
        logits = np.zeros((len(waves), AUDIOSET_CLASSES), np.float32)
        for i, wave in enumerate(waves):
            self._interpreter.set_tensor(self._at["input_1"], wave[None])
            self._interpreter.invoke()
            embedding[i] = self._interpreter.get_tensor(self._embedding)[0]
            logits[i] = self._interpreter.get_tensor(self._logits)[0]
        return Outputs(embedding, logits)


def _interpreter(path: Path) -> Any:
    """Return an allocated interpreter that keeps intermediate tensors readable."""
    if not path.is_file():
        raise CheckpointError(f"no TensorFlow Lite file at {path}: give the path of yamnet.tflite")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ConfigError("the teacher needs the package ai-edge-litert: pip install ai-edge-litert") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors")
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, PATCH_SAMPLES), np.float32))
    interpreter.invoke()  # constants can be read only after the first call
    return interpreter


def network(path: Path) -> MobileAudio:
    """Return YAMNet as a float32 network with the dequantised weights of the file.

    Args:
        path: ``yamnet.tflite``.

    Returns:
        :class:`~avseg.nn.mobile_audio.MobileAudio` with a 1024-dimensional embedding, in evaluation mode.

    Raises:
        ConfigError, CheckpointError: As :class:`Yamnet`.
    """
    interpreter = _interpreter(path)
    constants = _Constants(interpreter)
    net = MobileAudio(EMBEDDING)
    stem, *blocks = net.convolutions()
    with torch.no_grad():
        constants.copy(stem, "layer1/conv")
        for i, convolution in enumerate(blocks):
            constants.copy(convolution, f"layer{2 + i // 2}/{('depthwise', 'pointwise')[i % 2]}_conv")
        net.scores.weight.copy_(constants.find(f"{_ROOT}/dense/MatMul", (AUDIOSET_CLASSES, EMBEDDING)))
        net.scores.bias.copy_(constants.find(f"{_ROOT}/dense/BiasAdd", (AUDIOSET_CLASSES,)))
    return net.eval()


class _Constants:
    """Weights of the file, dequantised, found by the beginning of their name and their shape."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._details = interpreter.get_tensor_details()

    def copy(self, convolution: torch.nn.Conv2d, name: str) -> None:
        """Copy the weights of a layer: (out, kh, kw, in), or (1, kh, kw, channels) of depthwise layers."""
        shape = tuple(convolution.weight.shape)
        depthwise = convolution.groups > 1
        theirs = (1, *shape[2:], shape[0]) if depthwise else (shape[0], *shape[2:], shape[1])
        weight = self.find(f"{_ROOT}/{name}", theirs)
        convolution.weight.copy_(weight.permute((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)))
        assert convolution.bias is not None
        convolution.bias.copy_(self.find(f"{_ROOT}/{name}/bn", (shape[0],)))

    def find(self, prefix: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the first constant of that name and shape as float32."""
        for detail in self._details:
            if detail["name"].startswith(prefix) and tuple(detail["shape"]) == shape:
                q = detail["quantization_parameters"]
                values = self._interpreter.get_tensor(detail["index"])
                return torch.from_numpy(
                    dequantise(values, q["scales"], q["zero_points"], q["quantized_dimension"]),
                )
        raise CheckpointError(f"the TensorFlow Lite file has no constant {prefix} of shape {shape}: it is not YAMNet")


def dequantise(
    values: NDArray[Any], scales: NDArray[np.float32], zeros: NDArray[np.int32], axis: int
) -> NDArray[np.float32]:
    """Return (values - zeros) * scales, with one scale for all or one per index of an axis.

    Args:
        values: Any shape.
        scales: (1,), (values.shape[axis],), or (0,) for values that are not quantised.
        zeros: Like ``scales``.
        axis: Axis of ``values`` that the scales follow.
    """
    real: NDArray[np.float32] = values.astype(np.float32)
    if len(scales):
        shape = [1] * values.ndim
        shape[axis] = -1
        real = (real - zeros.reshape(shape).astype(np.float32)) * scales.reshape(shape)
    return real
