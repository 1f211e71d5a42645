"""Boundary out: files for the logs, DynamoDB for keys and index."""
