"""What the gateway is told."""

from dataclasses import dataclass
from pathlib import Path

from chassis.config import ProcessConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """One field per knob, the reason beside it."""

    http_port: int = 8080  # the public face
    public_url: str = "http://127.0.0.1:8080"  # what short_url begins with; a proxy in front has another address
    kafka: str  # bootstrap servers; clicks go there
    redis: str  # the values of links, which are only read, and beats, which are written [L2]
    link_service: str  # host:port of the peers
    analytics: str
    webhook: str
    audit: str
    visitor_key_file: Path | None = None  # 32 bytes in hex, the same in all instances: a visitor counts once
    trusted_proxies: int = 0  # entries of X-Forwarded-For that our own proxies wrote; 0: the peer is the client
    country_header: str = ""  # header in which a trusted proxy states the country; empty: unknown
    geoip_file: Path | None = None  # MaxMind format: the country of an address, where no proxy states it
    security_contact: str = ""  # URI for /.well-known/security.txt, such as mailto:…; empty: no such page
    code_key_file: Path | None = None  # link_service's, to know codes that nobody can have been given; none: all may be
    near_links_max: int = 100_000  # links kept in this process, about 1 kB each
    stale_if_error_s: float = 60.0  # how old they may be while neither Redis nor link_service answers [L4]
    misses_per_minute: int = 300  # codes that nobody has, for a network (/24, /48); more are 429; 0: no bound
    serve_unconfirmed: bool = True  # while Redis is away the table answers, and may miss a delete; false: 503 [L4]
    spool_dir: Path  # clicks on their way to Kafka; survives the process, and several gateways may share it
    spool_bytes_max: int = 268_435_456  # disk for them: a million clicks or so; more are dropped and counted [S6]
    spool_segment_bytes: int = 1_048_576  # of a file there
    ship_clicks: bool = True  # false: they stay in the spool until the next start, such as while Kafka is moved
