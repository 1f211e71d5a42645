"""Kafka as Linkmesh uses it: explicit offsets, keys in order, dead letters. The only code that imports aiokafka."""
