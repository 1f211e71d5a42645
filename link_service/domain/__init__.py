"""Every decision of link_service, as values in and verdicts out."""
