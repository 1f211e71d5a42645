"""python -m writer"""

from chassis.lifecycle import main
from writer.app import build
from writer.config import Config

if __name__ == "__main__":
    main("writer", Config, build)
