"""Fixtures every test may ask for; tests/engines.py tells what the engines give, tests/system.py the whole system."""

from tests.engines import dynamodb, dynamodb_fresh, kafka, kafka_fresh, kafka_topics, valkey, valkey_fresh, zipkin
from tests.system import system

__all__ = [
    "dynamodb",
    "dynamodb_fresh",
    "kafka",
    "kafka_fresh",
    "kafka_topics",
    "system",
    "valkey",
    "valkey_fresh",
    "zipkin",
]
