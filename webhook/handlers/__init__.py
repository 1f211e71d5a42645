"""What comes in: link events to be told, and calls of WebhookService."""
