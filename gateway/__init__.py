"""The public HTTP face: redirects, the REST API, and the click of every redirect.

Owns:      nothing that lasts; the clicks it has answered and not yet sent
Calls:     link_service (LinkService, KeyService), analytics, webhook, audit over gRPC; Redis (`url:` values, read only)
Consumes:  —
Produces:  analytics-events (LinkAccessed)
Stores:    —
If it dies: connections break, clicks in its memory are lost; any other instance goes on at once
"""
