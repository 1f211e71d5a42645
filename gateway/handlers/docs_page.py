"""The page about the API, written from its OpenAPI description: one file, nothing loaded from anywhere."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from contracts.reasons import Reason

Json = Mapping[str, Any]  # an OpenAPI document is open by nature

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .75rem .25rem 0;"
    "border-bottom:1px solid #ddd;vertical-align:top}code{font-size:.95em}h2{margin-top:2.5rem}"
)

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} API</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>
<h1>{title} API</h1>
<p>Send an API key as <code>Authorization: Bearer lk_live_…</code> or <code>X-API-Key</code>.
The same as a machine reads it: <a href="/openapi.json">/openapi.json</a>.</p>
{operations}
<h2>Errors</h2>
<p>Every error is <code>application/problem+json</code> (RFC 9457) with
<code>type title status detail code errors trace_id</code>.</p>
{errors}</body></html>
"""


def docs_page(openapi: Json) -> str:
    """The page as HTML."""
    schemas: Json = openapi.get("components", {}).get("schemas", {})
    operations = "\n".join(
        part
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method, path, operation, schemas)
    )
    reasons = ((reason.code, str(reason.http_status), reason.title) for reason in Reason)
    return _PAGE.format(
        title=escape(openapi["info"]["title"]),
        style=_STYLE,
        operations=operations,
        errors=_table(("code", "status", "meaning"), reasons),
    )


def _operation(method: str, path: str, operation: Json, schemas: Json) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('summary', ''))}. {escape(operation.get('description', ''))}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = ((item["name"], item["in"], _type(item["schema"], schemas)) for item in parameters)
        yield _table(("parameter", "in", "type"), rows)
    if body := operation.get("requestBody"):
        yield "<h3>Body</h3>" + _fields(body["content"]["application/json"]["schema"], schemas)
    for status, answer in operation["responses"].items():
        if status == "default":
            continue  # problems, told once for all
        content = answer.get("content", {})
        schema = content.get("application/json", {}).get("schema")
        other = f"<p>{escape(', '.join(content))}</p>" if content else "<p>No body.</p>"
        yield f"<h3>{escape(status)}</h3>" + (_fields(schema, schemas) if schema else other)


def _fields(schema: Json, schemas: Json) -> str:
    resolved = _resolve(schema, schemas)
    required = set(resolved.get("required", ()))
    rows = (
        (name, _type(field, schemas) + ("" if name in required else ", optional"), field.get("description", ""))
        for name, field in resolved.get("properties", {}).items()
    )
    return _table(("field", "type", ""), rows)


def _type(schema: Json, schemas: Json) -> str:
    """A type in a few words."""
    if options := schema.get("anyOf"):
        return " or ".join(_type(option, schemas) for option in options)
    if reference := schema.get("$ref"):
        fields = _resolve(schema, schemas).get("properties")
        return "{" + ", ".join(fields) + "}" if fields else str(reference).rpartition("/")[2]
    if values := schema.get("enum"):
        return " | ".join(str(value) for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], schemas)}"
    return str(schema.get("format") or schema.get("const") or schema.get("type", "any"))


def _resolve(schema: Json, schemas: Json) -> Json:
    reference = schema.get("$ref")
    found: Json = schemas[reference.rpartition("/")[2]] if reference else schema
    return found


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
