"""The engines Linkmesh stands on, each as a real process: Kafka, Valkey, a DynamoDB engine, Zipkin.

One class per engine, all used alike: `await engine.start()` returns when it is ready, `kill`, `pause` and `resume`
act at once, `await engine.stop()` ends it well; after `kill` or `stop` the same object starts again on its data.
"""

from linkmesh.local.engines.dynamodb import DynamoDBEngine
from linkmesh.local.engines.engine import Engine
from linkmesh.local.engines.kafka import KafkaEngine
from linkmesh.local.engines.valkey import ValkeyEngine
from linkmesh.local.engines.zipkin import ZipkinEngine

__all__ = ["DynamoDBEngine", "Engine", "KafkaEngine", "ValkeyEngine", "ZipkinEngine"]
