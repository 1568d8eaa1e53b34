"""What the errors of the data layer are in HTTP: 404, 409, 422, and 503 where trying again can help."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from db.error_mapping import translate
from db.errors import (
    CheckError,
    ConstraintError,
    DatabaseUnavailable,
    DataLayerError,
    DuplicateKeyError,
    InvalidInputError,
    NotFoundError,
    NotNullError,
    is_transient,
)
from db.fields import FieldError
from services.errors import ServiceError

RETRY_AFTER_S = "1"

STATUS_CODES: dict[type[Exception], int] = {
    NotFoundError: 404,
    InvalidInputError: 422,  # a filter, a cursor, a value too long
    CheckError: 422,
    NotNullError: 422,
    FieldError: 422,
    ConstraintError: 409,  # a key is taken, a parent is missing
    ServiceError: 409,  # a rule of ours
}
"""The first that fits counts."""

Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]


def add_error_answers(app: FastAPI) -> None:
    """Let an application answer every error that a client can do something about."""
    for kind in (DataLayerError, DatabaseUnavailable, SQLAlchemyError, ConnectionError, FieldError, ServiceError):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    del request
    named = translate(error)  # what a commit raises does not come from a repository
    if is_transient(named):
        detail = "the database cannot answer now: try again"
        return JSONResponse({"detail": detail, "error": type(named).__name__}, 503, {"Retry-After": RETRY_AFTER_S})
    code = next((code for kind, code in STATUS_CODES.items() if isinstance(named, kind)), None)
    if code is None:
        raise error  # a mistake of the program: 500, and a traceback in the log
    return JSONResponse(_content(named), code)


def _content(error: BaseException) -> dict[str, object]:
    content: dict[str, object] = {"detail": str(error), "error": type(error).__name__}
    if isinstance(error, DataLayerError):
        content["columns"] = list(error.columns)
    if isinstance(error, DuplicateKeyError) and error.deleted_id is not None:
        content["deleted_id"] = str(error.deleted_id)  # POST /tasks/{deleted_id}/restore
    return content
