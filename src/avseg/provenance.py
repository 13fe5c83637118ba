"""Provenance of results: command, commit, hardware, versions and date, the first fields of every result file."""

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
    """Return the first fields of a result file, serialisable as JSON.

    Args:
        command: Shell command that reproduces the result.
        device: Device of the computation.
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
    """Return the git commit of this package, with ``+`` if files are modified; None outside of a git checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        edited = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + "+" * bool(edited)


def hardware(device: torch.device) -> dict[str, Any]:
    """Return the processor, its load, and the GPU if ``device`` is one.

    ``load`` is the load average of the last minute; timings are unreliable if it exceeds ``cores``.
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
    """Return the name of the processor, from /proc/cpuinfo on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
