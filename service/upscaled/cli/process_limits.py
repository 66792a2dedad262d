"""What the system does to this process by itself: signals that end it, descriptors that run out."""

import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

# Sent by log rotation, by a closed terminal or by habit. By default each ends a process at once.
SURVIVED_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OPEN_MAX: Final = 10_240  # macOS allows no more where it says "unlimited"


def ignore_signals(numbers: Sequence[signal.Signals] = SURVIVED_SIGNALS) -> list[signal.Signals]:
    """Ignore signals from now on.

    Returns:
        Those that were not ignored already, as `nohup` has it for SIGHUP.
    """
    handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, signal.SIG_IGN)
    return handled


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files to its hard limit; the limit that then holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, min(hard, _OPEN_MAX) if hard != resource.RLIM_INFINITY else _OPEN_MAX):
        if soft != resource.RLIM_INFINITY and soft != wanted:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
