"""Close the memory and environment of processes of one user to each other; only Linux can.

A parent holds secrets: the database's password, keys of a bucket, a cluster's token. Its children,
which parse hostile bytes, run as the same user, and the system lets a process read the environment,
memory and open files of each other one of its user (ptrace(2), "Ptrace access mode checking").
There are two barriers, since a kernel may lack one of them: the parent closes its memory
(`hide_memory`), and a child gives up its right to read others (`give_up_other_processes`).
"""

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

# prctl(2)
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# landlock(7); the numbers of its calls are the same on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_RENAME_ACROSS_FOLDERS: Final = 1 << 13
_FIRST_VERSION_WITH_IT: Final = 2  # Linux 5.19

_NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
_NVIDIA_MEMORY: Final = Path("/dev/nvidia-uvm")


def hide_memory() -> None:
    """Keep other processes of this user out of this one's memory, environment and open files.

    Forked processes stay hidden, those that run another program do not. The system writes no core
    dump of a hidden process, and only root can attach a debugger or a profiler to it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def give_up_other_processes() -> bool:
    """Drop the rights to read other processes, except children, and to run setuid programs.

    It holds for the calling thread and the threads and processes that it starts, so it belongs
    before all threads. Root is held to it only without CAP_PERFMON and CAP_SYS_ADMIN: with either,
    newer kernels (6.18, say) still let a process read all others.

    Returns:
        Whether the kernel has Landlock and lets this process use it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < _FIRST_VERSION_WITH_IT:
        return False
    # There is no empty ruleset. This one forbids nothing about files: the one right that every
    # ruleset must restrict is granted for all folders.
    rights = struct.pack("=Q", _RENAME_ACROSS_FOLDERS)
    ruleset = libc.syscall(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if ruleset < 0:
        return False
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", _RENAME_ACROSS_FOLDERS, root)
        return not (
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
            or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            or libc.syscall(_RESTRICT_SELF, ruleset, 0)
        )
    finally:
        os.close(root)
        os.close(ruleset)


def needs_setuid_programs() -> bool:
    """Return whether the NVIDIA GPU of this machine has not been used since its start.

    Its driver then has a setuid program, nvidia-modprobe, make the device's files.
    """
    return _NVIDIA_DRIVER.exists() and not _NVIDIA_MEMORY.exists()
