"""``python -m worker <command>``."""

import gc


def run() -> None:
    """Import the commands without looking for garbage, of which they leave none, and run the one that was asked for."""
    gc.disable()
    from worker.cli import main  # noqa: PLC0415 - not before

    gc.freeze()
    gc.enable()
    main()


if __name__ == "__main__":
    run()
