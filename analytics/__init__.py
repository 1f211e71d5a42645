"""analytics: counts clicks, exactly once, and answers with the present.

Owns:      click counts and the state of their counting
Calls:     link_service (whose is the link), other instances of analytics (rows in their memory)
Consumes:  analytics-events, group analytics-group, checkpointed: the position stands beside the counts
Produces:  nothing
Stores:    DynamoDB table clicks: rows per link and hour, a checkpoint per partition
If it dies: redirects go on and nothing is lost; the next owner of its partitions folds again what was not yet flushed,
           rows skip what they already hold, and counts end where they would have
"""
