"""The real server with workers on a broken device, of faulty_device.py. It loads no torch itself.

python faulty_server.py ORDER ARGUMENTS...      `upscaled ARGUMENTS`
"""

import sys
from functools import partial
from pathlib import Path

import upscaled.cli.server as server
from upscaled.cli import main
from upscaled.pool.local import LocalPool

WORKER = str(Path(__file__).with_name("faulty_device.py"))

if __name__ == "__main__":
    _, order, *rest = sys.argv
    sys.argv = ["upscaled", *rest]
    vars(server)["LocalPool"] = partial(LocalPool, command=(sys.executable, WORKER, order))
    main()
