"""Where log lines go and what they look like: one line for each record, on standard error."""

import logging
import sys
import time

# What these say of every start and stop, the service says itself, shorter.
_TALKATIVE = ("alembic", "asyncio", "uvicorn")


def configure_logging(level: str) -> None:
    """Send this process's log to standard error.

    Args:
        level: "debug", "info", "warning" or "error".
    """
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel("WARNING")
