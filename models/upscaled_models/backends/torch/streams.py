"""What a device does beside computing: streams, events, pinned memory, captured graphs.

`CudaSeam` is the real thing. `InlineSeam` does everything at once and in order, on any device, so
that the code above it is the same, and tested, where there is no GPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, Protocol, cast

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
StreamName = Literal["upload", "compute", "download"]


class Moment(Protocol):
    """A point in a stream's work."""

    def query(self) -> bool:
        """Whether the work before it is done."""
        ...

    def synchronize(self) -> None:
        """Wait here until it is; raises what that work raised."""
        ...


class Seam(Protocol):
    def make_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Host memory that the device copies from and to by itself."""
        ...

    def on(self, stream: StreamName) -> AbstractContextManager[object]:
        """A block whose work goes into that stream."""
        ...

    def mark(self, stream: StreamName) -> Moment: ...

    def wait(self, stream: StreamName, moment: Moment) -> None:
        """Let later work of `stream` begin after `moment`; does not wait here."""
        ...

    def keep(self, tensor: Tensor, stream: StreamName) -> None:
        """`tensor`, made in another stream, is in use by `stream`: its memory is not given away."""
        ...

    def capture(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """Record `work`, in the compute stream: what does it again, and where its results lie.

        They are overwritten by whatever is captured or done again next.
        """
        ...

    def release(self) -> None:
        """Give back memory that nothing uses."""
        ...


class CudaSeam:
    """One NVIDIA GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device: Final = device
        self._streams: Final = {
            name: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for name in ("upload", "compute", "download")
        }
        self._pool: Final = torch.cuda.graph_pool_handle()

    def make_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def on(self, stream: StreamName) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._streams[stream])

    def mark(self, stream: StreamName) -> Moment:
        return cast(Moment, self._streams[stream].record_event())

    def wait(self, stream: StreamName, moment: Moment) -> None:
        self._streams[stream].wait_event(cast(torch.cuda.Event, moment))

    def keep(self, tensor: Tensor, stream: StreamName) -> None:
        tensor.record_stream(self._streams[stream])

    def capture(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """All graphs share one pool: they run one after the other in one stream, and the results of
        each are copied out in that stream before the next. Warm-up runs in the same stream, so
        that libraries make their handles and choose their kernels before anything is recorded.
        """
        with self.on("compute"):
            work()
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._streams["compute"],
                capture_error_mode="thread_local",
            ),
        ):
            results = work()
        return graph.replay, results

    def release(self) -> None:
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


class InlineSeam:
    """No streams at all: whatever is asked for is done when the call returns."""

    def make_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def on(self, stream: StreamName) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self, stream: StreamName) -> Moment:
        return _Past()

    def wait(self, stream: StreamName, moment: Moment) -> None:
        moment.synchronize()

    def keep(self, tensor: Tensor, stream: StreamName) -> None:
        """Nothing is given away early."""

    def capture(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        results = work()

        def replay() -> None:
            for result, again in zip(results, work(), strict=True):
                result.copy_(again)

        return replay, results

    def release(self) -> None:
        """Nothing is held."""


class _Past:
    """A moment that is over."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """It is."""
