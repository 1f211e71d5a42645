"""Fixtures every test may ask for; what each engine fixture gives is told in tests/engines.py."""

from tests.engines import dynamodb, dynamodb_fresh, kafka, kafka_fresh, kafka_topics, valkey, valkey_fresh, zipkin

__all__ = [
    "dynamodb",
    "dynamodb_fresh",
    "kafka",
    "kafka_fresh",
    "kafka_topics",
    "valkey",
    "valkey_fresh",
    "zipkin",
]
