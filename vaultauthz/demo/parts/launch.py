"""Become another program, tied to the life of the process that asked for it.

Run as `python -I -S launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARG…`; UID and GID of -1 keep the current user.
A program of its own, because running Python between fork and exec (`preexec_fn`) can deadlock a threaded parent.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def drop_to(uid: int, gid: int) -> None:
    """Change to an unprivileged user for good; does nothing for a negative uid."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def die_with(parent: int, death_signal: int) -> None:
    """Have the kernel send us the signal when the parent's starting thread ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        # The parent may have ended before the line above: then no signal will ever come.
        if os.getppid() != parent:
            sys.exit("the parent process is gone")


def main() -> None:
    """Read the arguments, then be replaced by the program."""
    parent, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    # In this order: the kernel forgets the death signal when the user changes.
    drop_to(uid, gid)
    die_with(parent, death_signal)
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606  # this is what the file is for


if __name__ == "__main__":
    main()
