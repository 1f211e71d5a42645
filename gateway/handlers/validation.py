"""What the models found wrong with a request, as a problem."""

from collections.abc import Mapping, Sequence

from contracts.reasons import Reason
from gateway.domain.problems import FieldProblem, Problem

_ERRORS_SHOWN_MAX = 20


def validation_problem(errors: Sequence[Mapping[str, object]]) -> Problem:
    """What is wrong with a request. Values are not repeated: they may be secrets."""
    if any(item["type"] == "json_invalid" for item in errors):
        return Problem(Reason.MALFORMED_REQUEST, "The body is not valid JSON.")
    fields: list[FieldProblem] = []
    for item in errors[:_ERRORS_SHOWN_MAX]:
        location = item["loc"]
        path = [str(part) for part in location] if isinstance(location, tuple | list) else [str(location)]
        if path == ["body"]:
            return Problem(Reason.MALFORMED_REQUEST, "Send a JSON object, as Content-Type: application/json.")
        fields.append(FieldProblem(".".join(path[1:]), _sentence(str(item["msg"]))))
    return Problem(Reason.INVALID_FIELD, "See errors for the fields that are not valid.", tuple(fields))


def item_problem(errors: Sequence[Mapping[str, object]]) -> Problem:
    """The same of one of many, whose own fields are named."""
    if any(item["loc"] == () for item in errors):
        return Problem(Reason.MALFORMED_REQUEST, "A link is a JSON object.")
    return validation_problem([{**item, "loc": ("body", *_parts(item["loc"]))} for item in errors])


def _parts(location: object) -> tuple[object, ...]:
    return tuple(location) if isinstance(location, tuple | list) else (location,)


def _sentence(message: str) -> str:
    plain = message.removeprefix("Value error, ")
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith(".") else ".")
