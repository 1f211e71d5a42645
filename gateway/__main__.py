"""python -m gateway"""

from chassis.lifecycle import main
from gateway.app import build
from gateway.config import Config

if __name__ == "__main__":
    main("gateway", Config, build)
