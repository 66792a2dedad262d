"""How long the pool waits for what, and how often a worker speaks."""

from dataclasses import dataclass

ALIVE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """All in seconds.

    start_s: from starting a worker to its `Ready`: loading and warming up the models.
    work_s: one image in one worker.
    silence_s: a ready worker that says nothing for so long hangs (it speaks every
        `ALIVE_EVERY_S`, from a thread of its own, whatever it works on).
    end_s: from closing a worker's socket to its end; then it is killed.
    restart_s, restart_max_s: the wait after a first failed start, doubled with each further one.
    steady_s: a worker that lived so long starts with a clean slate.
    """

    work_s: float
    start_s: float = 300
    silence_s: float = 15
    end_s: float = 3
    restart_s: float = 0.5
    restart_max_s: float = 30
    steady_s: float = 10

    def restart_after_s(self, failures: int) -> float:
        """The wait before the next start, `failures` starts having failed in a row."""
        if failures == 0:
            return 0
        return min(self.restart_max_s, self.restart_s * 2.0 ** min(failures - 1, 30))
