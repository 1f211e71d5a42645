"""What analytics is told by its environment."""

from dataclasses import dataclass

from chassis.config import ProcessConfig
from contracts.topics import ANALYTICS_EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """The knobs of analytics."""

    kafka: str  # bootstrap servers
    link_service: str  # host:port: whose a link is, and whom an API key stands for
    dynamodb: str = ""  # endpoint; empty: AWS
    dynamodb_timeout_s: float = 2.0  # per request; a hung database pauses the counting
    kafka_admin_timeout_s: float = 2.0  # for ends and owners; a question for stats waits that long at most
    topic: str = ANALYTICS_EVENTS.name
    group: str = ANALYTICS_EVENTS.groups[0]
    advertise: str = ""  # host:port at which other instances reach this one; empty: host and grpc_port
    flush_interval_s: float = 0  # how old a row in the table may be; 0: 5 in development, 60 in production
    rows_max: int = 200_000  # rows in memory, 0.5 to 1.5 kB each
    dirty_max: int = 100_000  # of these, rows not yet written; beyond, the counting pauses
    flush_rows_per_s_max: int = 5_000  # about what one process writes at full speed beside its counting

    @property
    def address(self) -> str:
        """What this instance is called in the group, and reached at."""
        return self.advertise or f"{self.host}:{self.grpc_port}"

    @property
    def flush_every_s(self) -> float:
        """The interval of flushes."""
        return self.flush_interval_s or (5.0 if self.environment == "development" else 60.0)
