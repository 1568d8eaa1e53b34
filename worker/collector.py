"""Python's collector of cyclic garbage, fitted to a worker.

What a worker has loaded (SQLAlchemy, pydantic, its kinds) stays until its end. To look through all of it again and
again took a quarter of the time of short ledgered runs, and stood in their way for 80 ms at once.
"""

import gc

YOUNG_OBJECTS = 10_000
"""How many more objects than now start a collection of the young ones; a hundred runs in flight have about as many."""
YOUNG_BEFORE_MIDDLE = 20
MIDDLE_BEFORE_OLD = 20


def spare_what_is_loaded() -> None:
    """Leave what this process has made so far out of all later collections. Call it once, when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_BEFORE_MIDDLE, MIDDLE_BEFORE_OLD)
