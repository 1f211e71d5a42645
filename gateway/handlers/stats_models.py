"""The JSON of what is told of clicks, as types."""

from datetime import datetime

from pydantic import BaseModel


class ClickTotalsBody(BaseModel):
    """Clicks by class; total = human + bot."""

    total: int
    human: int
    bot: int


class SeriesPointBody(BaseModel):
    """One step of a series; steps without a click are left out."""

    start: datetime
    clicks: int
    unique_visitors: int


class GroupBody(BaseModel):
    """People's clicks that share a value; `unknown`: there is none, `other`: all that had no room."""

    value: str
    clicks: int


class StatsBody(BaseModel):
    """Clicks of a link in a range of time."""

    short_code: str
    counted_until: datetime | None
    clicks: ClickTotalsBody
    prefetches: int
    unique_visitors: int
    series: list[SeriesPointBody]
    groups: list[GroupBody]


class TopLinkBody(BaseModel):
    """A link and how often people and bots followed it."""

    short_code: str
    clicks: int


class TopLinkList(BaseModel):
    """The most followed links first. `other_clicks`: on links that had no room in the list."""

    counted_until: datetime | None
    items: list[TopLinkBody]
    other_clicks: int
    next_page_token: str
