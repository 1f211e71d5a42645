"""python -m webhook"""

from chassis.lifecycle import main
from webhook.app import build
from webhook.config import Config

if __name__ == "__main__":
    main("webhook", Config, build)
