"""What the audit service can be told."""

from dataclasses import dataclass
from pathlib import Path

from chassis.config import ProcessConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """One field per knob, the reason beside it."""

    kafka: str  # host:port of the broker that has links-events
    link_service: str = ""  # host:port of who verifies Bearer keys; empty: only our own processes are let in
    dynamodb: str = ""  # endpoint of an engine on this machine; empty: AWS
    dynamodb_timeout_s: float = 5.0  # four batches of 25 rows at once, on an engine that syncs its disk for each row
    audit_dir: Path  # the logs; the one directory that must be backed up, and never shared by two deployments
    audit_signing_key_file: Path | None = None  # Ed25519 seed as hex; whoever has it can sign another history
    audit_origin: str = "linkmesh.local"  # schema-less URL the logs are known by; another one needs another directory
    audit_accept_gaps: bool = False  # a person's word that records which Kafka no longer has may be missing [B1]
    audit_batch_records_max: int = 500  # one checkpoint per batch and log; a slow database has to manage it in 30 s
