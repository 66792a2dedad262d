"""Run a blind comparison: make the pairs, serve the page, return the votes' summary."""

import threading
import time
from pathlib import Path
from typing import Any

from scripts.evaluation.blind.pairs import Comparison, make_pairs
from scripts.evaluation.blind.server import BlindServer
from scripts.evaluation.blind.tally import Tally

_LINGER_S = 1.0
"""Time in which the page can still fetch the summary after the last vote."""


def compare_blind(comparison: Comparison, tally_file: Path, port: int = 0) -> dict[str, Any]:
    """Serve the page until every pair has a vote or Ctrl-C; return the votes' summary.

    Args:
        tally_file: JSON; votes of the same comparison in it are kept.
        port: on the loopback interface; 0 takes a free one.

    Raises:
        ValueError: the file holds something else.
        OSError: the port is taken, or the file cannot be written.
    """
    plan = {
        "upscalers": sorted(comparison.upscalers),
        "scale": comparison.scale,
        "tracks": list(comparison.tracks),
        "truths": [truth.name for truth in comparison.truths],
        "seed": comparison.seed,
        "pairs": comparison.count,
    }
    tally = Tally.open(tally_file, plan)
    pairs = []
    for pair in make_pairs(comparison):
        pairs.append(pair)
        print(f"\rmaking pair {len(pairs)} of {comparison.count}", end="", flush=True)
    with BlindServer(pairs, tally, port) as server:
        print(f"\nopen {server.url} and choose with the keys 1, 2 and 0; Ctrl-C ends", flush=True)
        _serve(server)
    return tally.summary()


def _serve(server: BlindServer) -> None:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        server.finished.wait()
        time.sleep(_LINGER_S)
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        thread.join()
