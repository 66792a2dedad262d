"""The machine that was measured: hardware, versions and the day."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from upscaled_models.processor import count_cores, describe_processor, read_processor_flags

Figures = dict[str, Any]

_FLAGS = re.compile(r"avx2|avx_vnni|avx512(f|_vnni|_bf16|_fp16)|amx_\w+|asimd|sve\d?|bf16")
_NOTABLE = ("avx2", "avx512f", "amx_bf16", "amx_int8")
_PACKAGES = "upscaled torch openvino numpy opencv-python-headless pillow realesrgan basicsr ncnn"


def describe_machine() -> Figures:
    """Return processor, flags, cores, memory, GPU, versions and date, as JSON values."""
    versions = {}
    for name in _PACKAGES.split():
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": describe_processor().rpartition(" ")[0],  # without the digest of its flags
        "cpu_flags": sorted(filter(_FLAGS.fullmatch, read_processor_flags())),
        "cores": count_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": query_gpu("name"),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def describe_in_a_line(machine: Figures) -> str:
    """Name the machine as README does."""
    notable = [name for name in _NOTABLE if name in str(machine["cpu_flags"])]
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['cores']} cores of {machine['cpu']} ({', '.join(notable)}), {gpu}"


def query_gpu(figure: str) -> str:
    """Return one of nvidia-smi's figures of the first GPU; "" where there is none."""
    command = ["nvidia-smi", f"--query-gpu={figure}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.partition("\n")[0].strip()
