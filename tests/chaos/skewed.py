"""A service whose clock is wrong: `python tests/chaos/skewed.py <seconds> <service>`.

All code of the product reads wall time from chassis.clock.SystemClock, so that is where this process alone differs.
Timers, and what engines and libraries read, stay right: the machine has one clock.
"""

import runpy
import sys
from datetime import datetime, timedelta

from chassis.clock import SystemClock


def main() -> None:
    """Runs the service with its clock ahead (or, negative, behind) by so many seconds."""
    offset, service = timedelta(seconds=float(sys.argv[1])), sys.argv[2]
    now = SystemClock.now

    def wrong(clock: SystemClock) -> datetime:
        return now(clock) + offset

    SystemClock.now = wrong  # type: ignore[method-assign, assignment]  # this is the fault that is planted
    sys.argv = [service]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
