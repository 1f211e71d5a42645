"""How any Linkmesh process lives: configuration, life cycle, telemetry, errors, gRPC, Kafka. Knows nothing of links."""
