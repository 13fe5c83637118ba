"""Measure an int8 form of the exported model: ``python benchmarks/int8.py STOCK OUT.json [--clips 60]``.

The bundled model is exported to ONNX and quantised by onnxruntime.quantization: static, QDQ, one scale per channel of
the weights, calibrated on clips of the part ``val`` of a stock made by ``collect_material.py``. Torch (``exact``), ONNX
Runtime in float32 and in int8 predict every clip of ``gated_quality.py`` in turn; the numbers are as there.
"""

import shlex
import sys
import tempfile
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import avseg
from _common import mistakes_in_a_line
from avseg.export.read import OnnxModel
from avseg.export.write import export
from avseg.provenance import provenance, write_result
from gated_quality import EXACT, composed_clips, measure, rows_of

CALIBRATION = 16
"""Clips from which the ranges of the activations are taken."""


class Inputs:
    """Inputs of the clips, in the form that onnxruntime.quantization reads."""

    def __init__(self, model: Any, stock: Path) -> None:
        clips = composed_clips(model, stock, CALIBRATION, "val")
        self._left = [{"frames": s.clip.frames.numpy(), "audio": s.clip.audio.numpy()} for s in clips]

    def get_next(self) -> dict[str, Any] | None:
        """Return the next clip, or None after the last one."""
        return self._left.pop() if self._left else None


def quantised(model: Any, stock: Path, folder: Path) -> tuple[OnnxModel, OnnxModel]:
    """Return the exported model in float32 and in int8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, ready, small = (folder / f"{name}.onnx" for name in ("plain", "ready", "int8"))
    export(model, plain)
    quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(small),
        Inputs(model, stock),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )
    card = avseg.load(plain).card
    return OnnxModel(card, plain), OnnxModel(card, small)


def main(argv: Sequence[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--clips", type=int, default=60)
    words = parser.parse_args(argv)
    torch.set_num_threads(1)
    command = shlex.join(["python", "benchmarks/int8.py", "STOCK", str(words.out), "--clips", str(words.clips)])
    report = provenance(f"OMP_NUM_THREADS=1 {command}")
    model = avseg.load("small")
    with mistakes_in_a_line(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter and the quantiser
        plain, small = quantised(model, words.stock, Path(folder))
        models = {EXACT: avseg.optimize(model), "onnx": plain, "onnx, int8": small}
        rows = rows_of(measure(models, composed_clips(model, words.stock, words.clips)), {})
    config = {"model": "small", "clips": words.clips, "calibration": CALIBRATION, "clock": "CPU time"}
    write_result(words.out, {**report, "config": config, "numbers": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
