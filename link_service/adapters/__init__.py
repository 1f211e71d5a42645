"""Boundary out: Redis, DynamoDB and Kafka behind the ports."""
