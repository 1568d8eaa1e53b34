"""The queue's engine: arq's Worker, taught to let jobs stop at a batch's end."""

from worker.queue.worker import Worker

__all__ = ["Worker"]
