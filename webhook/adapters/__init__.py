"""Technology behind the ports of webhook."""
