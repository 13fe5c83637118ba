"""Where a number comes from: command, commit, machine, versions and date, which begin every result file we write."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from avseg.files import write_text


def provenance(command: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The fields every result file begins with; JSON-able.

    Args:
        command: The shell command that makes the same result again.
        device: What computed it.
    """
    packages = ("avseg", "torch", "transformers", "numpy")
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "hardware": hardware(torch.device(device)),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file as JSON, completely or not at all."""
    write_text(path, json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def commit() -> str | None:
    """The commit of the checkout this package runs from, ``+`` when it was edited since; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        edited = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + "+" * bool(edited)


def hardware(device: torch.device) -> dict[str, Any]:
    """What computed: the processor, and the accelerator if ``device`` is one.

    ``load`` is how many processes wanted the cores in the last minute: above ``cores``, timings say little.
    """
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "device": str(device),
    }
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _processor() -> str:
    """Its name, which Linux tells in a file alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
