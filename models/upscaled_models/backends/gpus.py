"""Count the NVIDIA GPUs that torch can use, and limit how much memory of one this process uses.

`python -m upscaled_models.backends.gpus` prints the number, for a front end, which loads no torch.
"""

import sys


def count_gpus() -> int:
    """Return how many NVIDIA GPUs torch can use here, of those in `CUDA_VISIBLE_DEVICES`."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_gpu_memory(device: str) -> int:
    """Return the total memory in bytes of "cuda", which is the first GPU, or "cuda:N"."""
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def limit_gpu_memory(device: str, limit_bytes: int) -> None:
    """Limit the GPU memory of this process, not counting some hundred megabytes of the context.

    Beyond the limit torch raises its out-of-memory error.
    """
    import torch

    share = min(1.0, limit_bytes / find_gpu_memory(device))
    torch.cuda.set_per_process_memory_fraction(share, device)


if __name__ == "__main__":
    sys.stdout.write(f"{count_gpus()}\n")
