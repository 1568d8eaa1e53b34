"""The job of the model's runs: an effect for each step, each in a batch of its own, stopped before each batch."""

from typing import ClassVar

from sqlalchemy import insert

from holdfast import JobReport, JobRequest
from jobs.context import RunContext
from jobs.registry import Job
from jobs.retry_policy import RetryPolicy
from tests.faults.effects import effects
from tests.model.gates import note_start, stop_at


class Walked(JobReport):
    """How many steps have taken effect."""

    steps: int


class Walk(JobRequest[Walked]):
    """Take so many steps."""

    kind: ClassVar[str] = "model_walk"
    report_type: ClassVar[type[JobReport]] = Walked

    steps: int


async def walk(context: RunContext, request: Walk) -> Walked:
    """Perform `Walk`."""
    await note_start(context)
    # Which step is next is remembered here, as jobs do that read a file: only the fence tells that it is too late.
    done = (await context.checkpoint()).cursor.get("step", 0)
    while done < request.steps:
        await stop_at("batch")
        context.stop_if_asked()
        async with context.batch() as batch:
            done += 1
            values = {"run_id": context.run_id, "step": done, "fence": context.fence}
            await batch.session.execute(insert(effects).values(values))
            batch.cursor = {"step": done}
    return Walked(steps=done)


JOBS = (Job(Walk, walk, timeout_s=3600.0, retries=RetryPolicy(max_attempts=100, first_s=0.0, slowest_s=0.0)),)
