"""Number of processes that the system ended because it ran out of memory."""

from contextlib import suppress
from pathlib import Path

_KEY = "oom_kill"


def oom_kills() -> int:
    """Return the count of the machine and of this process's group, which only grows; 0 if it is unknown."""
    files = [Path("/proc/vmstat")]
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:  # version 2
                files.append(Path("/sys/fs/cgroup", group.lstrip("/"), "memory.events"))
    count = 0
    for file in files:
        with suppress(OSError, ValueError):
            count += sum(int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[:1] == [_KEY])
    return count
