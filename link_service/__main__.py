"""python -m link_service"""

from chassis.lifecycle import main
from link_service.app import build
from link_service.config import Config

if __name__ == "__main__":
    main("link_service", Config, build)
