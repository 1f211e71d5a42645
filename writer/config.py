"""What writer is told by its environment."""

from dataclasses import dataclass

from chassis.config import ProcessConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ProcessConfig):
    """The knobs of writer."""

    kafka: str  # bootstrap servers
    redis: str  # URL
    dynamodb: str = ""  # endpoint; empty: AWS
    redis_timeout_s: float = 0.5  # `persisted` is off every user's path; a hung Redis pauses the consumer
    dynamodb_timeout_s: float = 2.0
    batch_records_max: int = 100  # four statements batches of 25
    lanes: int = 4  # batches at the same time
