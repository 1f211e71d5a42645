"""link_service: the rules of links and of API keys.

Owns      the rules of links: what a destination, a code, a version may be; the accounts and their API keys
Calls     nobody
Consumes  read-requests (cache-refresher): hints, to warm the cache
Produces  links-events, through the outbox in Redis and the relay
Stores    Redis: entries, leases, outbox; DynamoDB: reservations of custom codes, keys, leased blocks of ids
If it dies  redirects go on from L1 and Redis, creates and deletes wait; what was acknowledged stands in Redis' log
"""
