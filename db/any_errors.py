"""What can be asked of any exception, whoever made it."""


def leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a group, however deep, as ``asyncio.TaskGroup`` raises it; any other error alone."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def text_of(value: object) -> str:
    """Return ``str(value)``, or what is known where the value's own code for that fails."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - it may be anything
        return f"{type(value).__name__} (its text fails: {type(error).__name__})"
