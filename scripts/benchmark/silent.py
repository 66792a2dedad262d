"""The service without its figures and its log, to measure what they cost: for a process of its own.

python -c "from scripts.benchmark.silent import serve; serve()" serve --port 8000
"""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

WORKER = "from scripts.benchmark.silent import work; work()"


def serve() -> None:
    """`upscaled` that counts, times and logs nothing, nor do its workers."""
    import prometheus_client

    from service.api import app, facts, metrics
    from service.cli import main, server
    from service.pool.local import LocalPool

    _take_out(app, "log_exchange")
    _take_out(metrics.Metrics, "observe", "note_credit", "note_stored", "note_sweep")
    _take_out(facts.Facts, "note_work")
    setattr(facts.Facts, "timing", _no_context)  # noqa: B010  (a method is not to be assigned)
    setattr(prometheus_client.Gauge, "track_inprogress", _no_context)  # noqa: B010
    _take_out(server, "configure_logging")
    logging.disable(logging.CRITICAL)
    defaults: Any = LocalPool.__init__.__kwdefaults__
    defaults["command"] = (sys.executable, "-c", WORKER)
    main()


def work() -> None:
    """A worker that counts and logs nothing."""
    from service.pool import counting, worker
    from service.pool.figures import WorkerFigures
    from service.pool.tally import Tally

    nothing_told = WorkerFigures()
    setattr(counting, "count_batches", lambda *_: _do_nothing)  # noqa: B010
    setattr(Tally, "read", lambda _: nothing_told)  # noqa: B010
    _take_out(worker, "configure_logging")
    logging.disable(logging.CRITICAL)
    worker.main()


def _take_out(owner: object, *names: str) -> None:
    for name in names:
        assert hasattr(owner, name), name  # noqa: S101  (a measurement of nothing helps nobody)
        setattr(owner, name, _do_nothing)


def _do_nothing(*_: object) -> None:
    pass


def _no_context(*_: object) -> AbstractContextManager[None]:
    return nullcontext()
