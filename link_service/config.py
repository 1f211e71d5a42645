"""What link_service is told: one field per knob."""

from dataclasses import dataclass
from pathlib import Path

from chassis.config import ProcessConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """The configuration of link_service."""

    kafka: str  # bootstrap servers: the relay sends there, takeovers of custom codes ask there [K2]
    redis: str  # URL of the primary; it must run with appendfsync always and noeviction [R6]
    dynamodb: str = ""  # endpoint of an engine on this machine; empty: AWS with its own credentials
    public_url: str  # address of the gateway: its host is no allowed destination (a link to a link is a loop)
    code_key_file: Path  # 32 bytes in hex: the permutation of codes; the same in all instances, for ever [K1]
    api_key_pepper_file: Path  # 32 bytes in hex: keys are stored as HMAC under it, so that a stolen table opens nothing
    outbox_bytes_max: int = 0  # memory the outbox may take before changes are refused [O3]; 0: 0.4 of maxmemory
    allow_private_targets: bool = False  # for go links inside a network
