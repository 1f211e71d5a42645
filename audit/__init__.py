"""The immutable record: every link event, in a Merkle tree that anyone can check.

Owns:     the logs (one C2SP tlog-tiles log per partition of `links-events`), their signing key, the accounts' leaf keys
Calls:    link_service, to verify API keys of callers that are none of our processes
Consumes: `links-events`, every partition, by assignment [B2]; commits under `audit-log` for lag tools only
Produces: nothing
Stores:   tiles and signed checkpoints in a directory; account keys and an index of entries in table `audit`
If it dies: nothing is lost: records wait in Kafka, and the tree says where to go on. Meanwhile no new checkpoints.
"""
