"""python -m audit"""

from audit.app import build
from audit.config import Config
from chassis.lifecycle import main

if __name__ == "__main__":
    main("audit", Config, build)
