"""Makes this Python behave as on Windows where our code could notice. Python runs it at its start, in workers too.

It hides the modules and names that only POSIX systems have, and refuses what Windows refuses: some file names, symbolic
links, to open a folder, to sync a file that is open for reading, and to rename, replace or remove a file that this
process has open. `sys.platform` stays as it is, because libraries choose their compiled parts by it.
"""

import errno
import importlib.abc
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import warnings

import psutil  # noqa: F401  # on Linux it needs some of the names that are hidden below

MODULES = {"fcntl", "resource", "grp", "pwd", "termios", "tty", "pty", "syslog", "crypt", "spwd"}
NAMES = {
    signal: (
        "SIGUSR1 SIGUSR2 SIGHUP SIGALRM SIGPIPE SIGCONT SIGTSTP SIGTTIN SIGTTOU SIGQUIT "
        "alarm pause sigwait pthread_sigmask pthread_kill setitimer"
    ),
    os: (  # on Linux numpy needs os.uname, torch os.register_at_fork, SIGKILL and SIGCHLD, Lightning SIGSTOP
        "fork forkpty sched_getaffinity sched_setaffinity getuid geteuid getgid getegid getgroups "
        "O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_SYNC killpg getpgid getpgrp setsid nice getloadavg mkfifo "
        "statvfs fchmod fchown chown lchown fchdir chroot pread pwrite posix_fadvise sysconf wait sendfile"
    ),
}
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[^.][. ]$')


class Hidden(importlib.abc.MetaPathFinder):
    """Says that POSIX's modules do not exist."""

    def find_spec(self, name, path, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def refuse(number, path, why):
    raise OSError(number, f"{os.strerror(number)} (as on Windows: {why})", os.fspath(path))


def is_open(path):
    """Whether this process has a file, or one below a folder, open or mapped into memory."""
    path, found = os.path.realpath(path), []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        found = [line.rstrip("\n").split(maxsplit=5)[-1] for line in file]
    for number in os.listdir("/proc/self/fd"):
        if os.path.lexists(link := f"/proc/self/fd/{number}"):
            found.append(os.readlink(link))
    return any(each == path or each.startswith(f"{path}/") for each in found)


def check(event, given):
    """An audit hook: an exception here keeps the operation from happening."""
    if event == "open" and not isinstance(given[0], int):
        path, mode, _ = given
        check_name(path)
        if mode is None and os.path.isdir(path):
            refuse(errno.EACCES, path, "a folder cannot be opened")
    elif event == "os.mkdir":
        check_name(given[0])
    elif event == "os.symlink":
        refuse(errno.EPERM, given[1], "symbolic link")
    elif event == "os.rename":  # os.replace too
        check_name(given[1])
        check_closed(given[0])
        check_closed(given[1])
        if os.path.isdir(given[1]):
            refuse(errno.EACCES, given[1], "a folder cannot be replaced")
    elif event in ("os.remove", "os.rmdir"):
        check_closed(given[0])


def check_name(path):
    path = os.fsdecode(path)
    if FORBIDDEN.search(os.path.basename(path)) and not path.startswith(("/proc/", "/sys/")):
        refuse(errno.EINVAL, path, "name")


def check_closed(path):
    if os.path.exists(path) and is_open(path):
        refuse(errno.EACCES, path, "open")


def rename(source, target, *, before=os.rename):
    if os.path.exists(target):
        refuse(errno.EEXIST, target, "os.rename replaces nothing")
    before(source, target)


def fsync(file, *, before=os.fsync):
    with open(f"/proc/self/fdinfo/{file if isinstance(file, int) else file.fileno()}", encoding="utf-8") as flags:
        if not int(flags.read().split("flags:")[1].split()[0], 8) & 3:
            refuse(errno.EBADF, str(file), "open for reading")
    before(file)


def system(*, before=platform.system):
    """Windows for Lightning, which then does without SIGUSR1."""
    return "Windows" if sys._getframe(1).f_globals.get("__name__", "").startswith("lightning.") else before()


for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding="cp1252")  # type: ignore[union-attr]
sys.meta_path.insert(0, Hidden())
for module in MODULES:
    sys.modules.pop(module, None)
for owner, names in NAMES.items():
    for name in names.split():
        if hasattr(owner, name):
            delattr(owner, name)
os.rename, os.fsync, platform.system = rename, fsync, system  # type: ignore[assignment]
signal.valid_signals = lambda: {
    signal.SIGABRT,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGINT,
    signal.SIGSEGV,
    signal.SIGTERM,
}
shutil._use_fd_functions = False  # type: ignore[attr-defined]
multiprocessing.set_start_method("spawn")
sys.addaudithook(check)
warnings.filterwarnings("error", "'encoding' argument not specified", EncodingWarning, r"(qa_lm|hydra_plugins)(\.|$)")
