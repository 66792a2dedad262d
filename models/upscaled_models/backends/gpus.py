"""Count the NVIDIA GPUs that torch can use, and limit how much memory this process takes of one.

`python -m upscaled_models.backends.gpus` prints the number: a front end loads no torch, and runs
this program to know how many workers it needs. As loading torch takes seconds, it does so only
where there is an NVIDIA driver.
"""

import sys


def count_gpus() -> int:
    """Return how many NVIDIA GPUs torch can use here, of those in `CUDA_VISIBLE_DEVICES`."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_gpu_memory(device: str) -> int:
    """Return the total memory of a GPU in bytes.

    Args:
        device: "cuda", which is the first one, or "cuda:N".
    """
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def limit_gpu_memory(device: str, limit_bytes: int) -> None:
    """Limit the GPU memory of this process; beyond the limit torch raises its out-of-memory error.

    The CUDA context itself, some hundred megabytes, is not counted.

    Args:
        limit_bytes: more than the GPU has is no limit.
    """
    import torch

    share = min(1.0, limit_bytes / find_gpu_memory(device))
    torch.cuda.set_per_process_memory_fraction(share, device)


if __name__ == "__main__":
    sys.stdout.write(f"{count_gpus()}\n")
