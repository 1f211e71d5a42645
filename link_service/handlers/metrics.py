"""What link_service counts."""

from prometheus_client import Counter

from contracts.link import EventType

LINKS_CREATED = Counter("links_created_total", "Links that were made", ["kind"])  # generated, custom
LINKS_CHANGED = {
    EventType.UPDATED: Counter("links_updated_total", "Links of which something was changed"),
    EventType.DELETED: Counter("links_deleted_total", "Links that were ended"),
    EventType.RESTORED: Counter("links_restored_total", "Links that were brought back"),
}
RACES_LOST = Counter("link_races_lost_total", "Changes that were decided again, since the link had changed")
RESOLVED = Counter("links_resolved_total", "Where answers to ResolveLink and GetLink came from", ["source"])
TABLE_READS = Counter("link_table_reads_total", "Calls that read links from the table", ["kind"])  # one, batch
READ_REQUESTS = Counter("read_requests_total", "Requests to warm the cache, by what became of them", ["outcome"])
KEY_VERDICTS = Counter("key_verdicts_total", "Where verdicts on API keys came from", ["source"])  # memory, table, stale
