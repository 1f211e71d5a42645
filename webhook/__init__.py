"""webhook: who is told of link events, and when.

Owns      endpoints of accounts, and a delivery for each event and endpoint
Calls     subscribers' URLs over HTTP; link_service to verify a Bearer key
Consumes  links-events, as group webhooks
Produces  nothing but dead letters
Stores    DynamoDB table webhooks
If it dies, nothing else notices; its successor goes on at the committed offset, and deliveries that were under way are
          made again when their lease is over (a subscriber may see one twice, with the same webhook-id)
"""
