"""How far a run has come, as workers tell it and handles read it."""

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    """``done`` and ``total`` count ``unit``; ``counters`` are the job's own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: int
    total: int | None = None
    unit: str = "rows"
    counters: dict[str, int] = {}
