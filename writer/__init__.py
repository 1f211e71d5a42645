"""writer: link events become rows.

Owns      the link tables: event rows and the projection
Calls     nobody
Consumes  links-events, as group database-writer
Produces  nothing but dead letters
Stores    DynamoDB table links; tells Redis what is persisted
If it dies, links are created and redirected as before, Redis keeps what is not persisted, and its successor goes on
          at the committed offset; every step may be repeated
"""
