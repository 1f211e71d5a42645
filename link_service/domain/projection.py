"""Whether a link's projection is what its newest event says."""

from dataclasses import dataclass, fields

from contracts.link import FieldChange, Link, LinkState
from link_service.domain.links import json_text


@dataclass(frozen=True, slots=True)
class Ahead:
    """The projection is newer than every event row: rows are lost, and to go back would lose more."""


def repairs(stored: Link | None, rebuilt: Link) -> tuple[FieldChange, ...] | Ahead:
    """What has to change in a projection (None: there is none, or none that can be read); empty: nothing."""
    if stored is not None and stored.version > rebuilt.version:
        return Ahead()
    return tuple(
        FieldChange(field.name, _text(stored, field.name), _text(rebuilt, field.name))
        for field in fields(Link)
        if stored is None or getattr(stored, field.name) != getattr(rebuilt, field.name)
    )


def _text(link: Link | None, name: str) -> str:
    value = None if link is None else getattr(link, name)
    return json_text(value.value if isinstance(value, LinkState) else value)
