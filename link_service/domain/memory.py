"""What Redis still does as its memory fills [R6]. The library decides by the same shares; here they get words."""

from enum import Enum


class MemoryLevel(Enum):
    """From well to full. The value: from which share of maxmemory on."""

    WELL = 0.0
    SHORTENED = 0.50  # what the tables hold expires after an hour instead of a day
    SHORTEST = 0.70  # … after a minute, and nothing is cached any more
    NO_CREATES = 0.85
    NO_CHANGES = 0.95

    @property
    def sentence(self) -> str:
        """What an operator should know."""
        return _SENTENCES[self]


_SENTENCES = {
    MemoryLevel.WELL: "all is well",
    MemoryLevel.SHORTENED: "links that the tables hold stay for an hour",
    MemoryLevel.SHORTEST: "links that the tables hold stay for a minute, and nothing is cached any more",
    MemoryLevel.NO_CREATES: "creates are refused",
    MemoryLevel.NO_CHANGES: "creates, updates and deletes are refused",
}


def level_of(share: float) -> MemoryLevel:
    """The level at this share of maxmemory in use."""
    return max((level for level in MemoryLevel if share >= level.value), key=lambda level: level.value)
