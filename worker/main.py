"""arq's settings of this worker, for ``python -m worker run`` and for stock ``arq worker.main.WorkerSettings``.

Stock arq needs ``REDIS_URL``: it connects to Redis before the startup hook could open the embedded queue.
"""

from typing import Any

from arq.worker import func

from holdfast import wire
from jobs.registry import load_jobs
from worker.logs import configure_logs
from worker.redis_url import arq_connection
from worker.run import job_function
from worker.runtime import Runtime
from worker.settings import Settings

ARQ_TIMEOUT_MARGIN_S = 120.0
"""The wrapper ends an attempt at its kind's timeout; arq's own comes later, or never."""
NO_LIMIT = 2**31
"""arq counts tries in Redis and drops jobs by that count; here the ledger decides."""


def worker_kwargs(settings: Settings, runtime: Runtime) -> dict[str, Any]:
    """Return the arguments of arq's ``Worker``."""
    functions = [
        func(
            job_function(job),  # type: ignore[arg-type]
            name=job.kind,
            timeout=job.timeout_s + ARQ_TIMEOUT_MARGIN_S,
            keep_result=settings.keep_result_s,
            max_tries=NO_LIMIT,
        )
        for job in load_jobs(settings).values()
    ]
    return {
        "functions": functions,
        "queue_name": runtime.queues[0],
        **arq_connection(settings.redis_address, runtime.queues[0]),
        "on_startup": runtime.start,
        "on_shutdown": runtime.stop,
        "job_completion_wait": settings.shutdown_grace_s,
        "max_jobs": settings.max_jobs,
        "keep_result": settings.keep_result_s,
        "max_tries": NO_LIMIT,
        "allow_abort_jobs": True,
        "job_serializer": wire.dumps,
        "job_deserializer": wire.read_job,
        "log_results": False,
    }


def __getattr__(name: str) -> Any:
    # Built on demand: importing this module reads no environment. arq reads only the class's own attributes.
    if name != "WorkerSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = Settings()
    if settings.queue_is_embedded:
        raise RuntimeError(
            "REDIS_URL is not set: stock arq cannot run the embedded queue; set it, or use `python -m worker run`"
        )
    if len(settings.served_queues) > 1:
        raise RuntimeError(f"QUEUES names {len(settings.served_queues)} queues, stock arq serves one: name one")
    configure_logs(settings)
    return type(name, (), worker_kwargs(settings, Runtime(settings, owns_queue=False)))
