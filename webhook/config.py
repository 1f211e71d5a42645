"""What webhook is told by its environment."""

from dataclasses import dataclass

from chassis.config import ProcessConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """The knobs of webhook."""

    kafka: str  # bootstrap servers
    public_url: str  # of the gateway: the short_url in payloads begins with it
    dynamodb: str = ""  # endpoint; empty: AWS
    link_service: str = ""  # host:port, verifies Bearer keys; empty: only the gateway may call
    webhook_http_hosts: tuple[str, ...] = ()  # may be told over http and on private addresses: for development
    dynamodb_timeout_s: float = 2.0
    attempt_timeout_s: float = 15.0  # from the look-up of the name to the end of the answer
    lease_s: float = 30.0  # a claim that is older was abandoned; above attempt_timeout_s, with time to wait for a slot
    sweep_interval_s: float = 1.0  # how often due deliveries are looked for; the shortest delay is 5 s
    drain_s: float = 5.0  # at stop, for attempts under way; below grace_s, so that a receiver that hangs cannot hold us
    attempts_per_endpoint_max: int = 5  # at the same time: what a small receiver takes
    attempts_max: int = 200  # at the same time in all: 40 endpoints that hang for ever leave room for others
    waiting_max: int = 5_000  # first attempts kept in memory, some 2 KB each; beyond, the table keeps them
    waiting_per_endpoint_max: int = 200
