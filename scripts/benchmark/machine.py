"""What a measurement was taken on: hardware, versions, the day."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

Facts = dict[str, object]

_FLAGS_THAT_MATTER = re.compile(
    r"avx2|avx_vnni|avx512(f|_vnni|_bf16|_fp16)|amx_\w+|asimd|sve\d?|bf16"
)
PACKAGES = ("upscaled", "torch", "openvino", "numpy", "opencv-python-headless", "pillow")
COMPARED_PACKAGES = ("realesrgan", "basicsr", "ncnn")


def describe_machine() -> Facts:
    """Processor, flags, cores, memory, GPU, versions and date, as JSON values."""
    cpu = _read_cpu()
    flags = cpu.get("flags") or cpu.get("Features", "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_flags": [flag for flag in flags.split() if _FLAGS_THAT_MATTER.fullmatch(flag)],
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": find_gpu(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {
            name: found for name in (*PACKAGES, *COMPARED_PACKAGES) if (found := _version(name))
        },
    }


def describe_in_a_line(machine: Facts) -> str:
    """The machine as README names it."""
    flags = machine["cpu_flags"]
    notable = [name for name in ("avx2", "avx512f", "amx_bf16", "amx_int8") if name in str(flags)]
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['cores']} cores of {machine['cpu']} ({', '.join(notable)}), {gpu}"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_gpu() -> str:
    """The first NVIDIA GPU's name; "" where there is none."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.partition("\n")[0].strip()


def _read_cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is no such file."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    first = file.read_text().partition("\n\n")[0]
    return dict(re.findall(r"^([^\t:]+)\s*: (.*)$", first, re.MULTILINE))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
