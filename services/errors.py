"""What the rules refuse; each message is one line that says what to do.

    ServiceError
      StatusChangeRefused     a task may not go from its status to that one
      UserDeactivated         a deactivated user gets no new work

What the database refuses is in ``db.errors``.
"""


class ServiceError(Exception):
    """A rule of a service was broken; the same call is refused again."""


class StatusChangeRefused(ServiceError):  # noqa: N818
    """A task may not go from its status to that one."""


class UserDeactivated(ServiceError):  # noqa: N818
    """A deactivated user gets no new work."""
