"""What an API key may allow."""

LINKS_READ = "links:read"
LINKS_WRITE = "links:write"
STATS_READ = "stats:read"
WEBHOOKS_MANAGE = "webhooks:manage"
AUDIT_READ = "audit:read"

ACCOUNT_SCOPES = (LINKS_READ, LINKS_WRITE, STATS_READ, WEBHOOKS_MANAGE, AUDIT_READ)

OPERATE = "operate"  # what touches links of all accounts; given only by who holds the mesh secret, or has it
