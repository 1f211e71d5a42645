"""python -m analytics"""

from analytics.app import build
from analytics.config import Config
from chassis.lifecycle import main

if __name__ == "__main__":
    main("analytics", Config, build)
