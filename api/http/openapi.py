"""The description of the API for other programs: what FastAPI knows, and what only we know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ..schemas.base import Message, Problem
from .auth import permissions_of
from .errors import PROBLEM_TYPE
from .request_context import KEY_HEADER
from .wire import Format

_REF: Final = "#/components/schemas/{model}"
_KEY_PARAMETER: Final[dict[str, Any]] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "The same key with the same body has one effect and gets the same answer.",
}


def request_body(
    model: type[Message], *, example: dict[str, Any] | None = None, changes: bool = False
) -> dict[str, Any]:
    """Return what OpenAPI says of a route that reads its body itself.

    Args:
        model: what the body must be.
        example: a body that is right.
        changes: whether the route changes something, and so takes an idempotency key.
    """
    content: dict[str, Any] = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    if example is not None:
        content["example"] = model.model_validate(example).model_dump(
            mode="json", exclude_unset=True
        )
    body: dict[str, Any] = {"required": True, "content": {each.value: content for each in Format}}
    extra: dict[str, Any] = {"requestBody": body}
    if changes:
        extra["parameters"] = [_KEY_PARAMETER]
    return extra


def answer_body(
    example: dict[str, Any], *, job: type[BaseModel] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the answer of a route.

    Args:
        example: an answer.
        job: what is answered if a job has begun; None if the route never needs one.
    """
    given: dict[int | str, dict[str, Any]] = {
        200: {"content": {each.value: {"example": example} for each in Format}}
    }
    if job is not None:
        given[202] = {"model": job, "description": "A job has begun; `job_id` is its number."}
    return given


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the whole description."""
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: list[type[BaseModel]] = [*_messages(Message), Problem]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    schemas.update(definitions["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    problem = {
        "description": "An error (RFC 9457). `code` is stable.",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            needed = permissions_of(route)
            for method in route.methods or ():
                operation = described["paths"][route.path_format][method.lower()]
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
                operation["x-permissions"] = list(needed)
                operation["security"] = [{"token": []}] if needed else []
    return described


def _messages(base: type[Message]) -> Iterator[type[Message]]:
    """Yield every kind of message below this one; not those that others only begin with."""
    for found in base.__subclasses__():
        if not found.__name__.startswith("_"):
            yield found
        yield from _messages(found)
