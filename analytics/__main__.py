"""python -m analytics"""

import gc

from analytics.app import build
from analytics.config import Config
from chassis.lifecycle import main

# A hundred thousand rows are made and kept, none of them in a cycle: looking through them all as often as by default
# takes a fifth of the counting.
_YOUNG_MAX, _MIDDLE_MAX, _OLD_MAX = 20_000, 20, 100

if __name__ == "__main__":
    gc.set_threshold(_YOUNG_MAX, _MIDDLE_MAX, _OLD_MAX)
    main("analytics", Config, build)
