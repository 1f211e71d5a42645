"""The JSON of the API as types: requests are parsed by these, answers documented (and tested) by these."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SkipValidation,
    StrictInt,
)


def _text_only(value: object) -> object:
    """RFC 3339 is text; a bare number would be taken for seconds since 1970."""
    if not isinstance(value, str):
        raise ValueError("a time is text in RFC 3339, such as 2027-01-31T12:00:00Z")  # noqa: TRY004 (pydantic's way)
    return value


def _in_utc(value: datetime) -> datetime:
    """The same moment in UTC, the only zone beyond this point."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is outside of the years 1 to 9999") from None


def _encodable(value: str) -> str:
    """JSON can spell half a surrogate pair, which is no character and fits into no other form."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("the text has half a character (a lone surrogate)") from None
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Moment = Annotated[AwareDatetime, BeforeValidator(_text_only), AfterValidator(_in_utc)]


class Request(BaseModel):
    """A request's body: unknown fields are errors, so that a misspelt one is not silently left out."""

    model_config = ConfigDict(extra="forbid")


class NewLink(Request):
    """What is needed for a link. Limits are checked, and named, by the rules of links."""

    long_url: Text = Field(description="Destination, http or https, at most 2048 characters when normalised")
    custom_code: Text | None = Field(None, description="Wanted code: 3 to 64 letters, digits, '-' or '_'")
    expires_at: Moment | None = Field(None, description="From when on the code answers 410")
    starts_at: Moment | None = Field(None, description="Before this the code answers 404")
    redirect_status: StrictInt | None = Field(None, ge=100, le=599, description="301, 302 (default), 307 or 308")
    title: Text | None = Field(None, description="At most 200 characters, for the owner's eyes")
    tags: list[Text] = Field(default_factory=list, description="At most 16 of at most 64 characters")


class NewLinks(Request):
    """Links to be made. Each is looked at by itself: what is wrong with one is told in its place."""

    links: list[SkipValidation[NewLink]] = Field(description="At most 100", max_length=100)


class LinkChanges(Request):
    """What of a link shall change (RFC 7396): what is left out stays; null empties, or sets the default again."""

    long_url: Text = Field("", description="Destination; a link always has one")
    expires_at: Moment | None = Field(None, description="From when on the code answers 410; null: never")
    starts_at: Moment | None = Field(None, description="Before this the code answers 404; null: at once")
    redirect_status: StrictInt | None = Field(None, ge=100, le=599, description="301, 302, 307 or 308; null: 302")
    title: Text | None = Field(None, description="At most 200 characters")
    tags: list[Text] | None = Field(None, description="At most 16 of at most 64 characters, instead of those before")


class NewEndpoint(Request):
    """Whom to tell."""

    url: Text = Field(description="Where deliveries go")
    event_types: list[Text] = Field(default_factory=list, description="Such as link.created; empty: all")


class NewKey(Request):
    """What a further key may do."""

    scopes: list[Text] = Field(default_factory=list, description="Such as links:read; empty: all of the caller's own")


class LinkBody(BaseModel):
    """A link."""

    short_code: str
    short_url: str
    long_url: str
    user_id: str
    is_custom: bool
    version: int
    state: Literal["active", "deleted", "expired", "blocked"]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    expires_at: datetime | None
    starts_at: datetime | None
    redirect_status: Literal[301, 302, 307, 308]
    title: str
    tags: list[str]


class ChangeBody(BaseModel):
    """A field before and after; null: none."""

    old: JsonValue
    new: JsonValue


class EventBody(BaseModel):
    """A fact about a link, with the full link that resulted."""

    event_id: str
    type: Literal["link.created", "link.updated", "link.deleted", "link.restored"]
    version: int
    short_code: str
    user_id: str
    at: datetime
    changes: dict[str, ChangeBody]
    link: LinkBody


class RebuiltBody(BaseModel):
    """A link, and what was repaired in its row."""

    link: LinkBody
    changes: dict[str, ChangeBody]


class EndpointBody(BaseModel):
    """Who is told."""

    endpoint_id: str
    user_id: str
    url: str
    event_types: list[str]
    enabled: bool
    created_at: datetime | None


class CreatedEndpointBody(EndpointBody):
    """A new endpoint and the secret that signs its deliveries, shown this once."""

    secret: str


class CreatedKeyBody(BaseModel):
    """A new API key, shown this once. `prefix`: its first characters, to recognise it by."""

    key_id: str
    user_id: str
    scopes: list[str]
    prefix: str
    created_at: datetime
    secret: str


class DeliveryBody(BaseModel):
    """One event for one endpoint."""

    endpoint_id: str
    event_id: str
    event_type: str
    short_code: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    last_status: int | None
    last_error: str
    next_attempt_at: datetime | None


class AuditEntryBody(BaseModel):
    """A leaf of the log and what its owner may know of it. `commitment`: hex."""

    leaf_index: int
    topic: str
    partition: int
    offset: int
    recorded_at: datetime | None
    event_id: str
    event_type: str
    commitment: str
    short_code: str
    version: int
    user_id: str


class CheckpointBody(BaseModel):
    """The newest signed checkpoint of a log, a C2SP note."""

    partition: int
    size: int
    checkpoint: str


class EventList(BaseModel):
    """Events, newest last. `current_version`: the link's newest, which the last event has once all are there."""

    items: list[EventBody]
    next_page_token: str
    current_version: int


class EndpointList(BaseModel):
    """Endpoints."""

    items: list[EndpointBody]
    next_page_token: str


class DeliveryList(BaseModel):
    """Deliveries, newest first."""

    items: list[DeliveryBody]
    next_page_token: str


class AuditEntryList(BaseModel):
    """Entries; of a code oldest first, of an account newest first."""

    items: list[AuditEntryBody]
    next_page_token: str


class LinkResult(BaseModel):
    """A link, or why there is none; one of the two."""

    link: LinkBody | None = None
    problem: "ProblemBody | None" = None


class LinkResults(BaseModel):
    """One result for each link that was asked for, in order."""

    results: list[LinkResult]


class FieldProblemBody(BaseModel):
    """A field of the request and what is wrong with it."""

    field: str
    description: str


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblemBody]
    trace_id: str
