"""What the client does inside Redis, each in one step that nobody sees half done. Time is Redis's own (``TIME``)."""

import hashlib
from dataclasses import dataclass, field

INTAKE_RUNS = 100_000
"""The newest ids that the intake list keeps: where no ledgered worker reads it, it must not grow for ever."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name under which Redis keeps it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


_CLOCK = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

ENQUEUE = Script(
    _CLOCK
    + f"""
local queue, intake = KEYS[1], KEYS[2]
local due, ledgered = ARGV[1], tonumber(ARGV[2])
if due == '' then due = string.format('%.0f', now) end
local jobs, results, n = {{}}, {{}}, 0
for i = 3, #ARGV, 2 do
  n = n + 1
  jobs[n], results[n] = 'arq:job:' .. ARGV[i], 'arq:result:' .. ARGV[i]
end
local all_free = redis.call('EXISTS', unpack(jobs)) + redis.call('EXISTS', unpack(results)) == 0
local taken, payloads, entries, entered, free = {{}}, {{}}, {{}}, {{}}, 0
for i = 1, n do
  if all_free or redis.call('EXISTS', jobs[i], results[i]) == 0 then
    local id = ARGV[2 * i + 1]
    free = free + 1
    payloads[2 * free - 1], payloads[2 * free] = jobs[i], ARGV[2 * i + 2]
    entries[2 * free - 1], entries[2 * free] = due, id
    if i <= ledgered then entered[free] = id end
  else
    taken[#taken + 1] = i
  end
end
if free == 0 then return taken end
-- What may be refused (a key of another type) stands before what would be left behind.
if #entered > 0 and redis.call('RPUSH', intake, unpack(entered)) > {INTAKE_RUNS} then
  redis.call('LTRIM', intake, -{INTAKE_RUNS}, -1)
end
redis.call('ZADD', queue, unpack(entries))
redis.call('MSET', unpack(payloads))
return taken
"""
)
"""KEYS: queue, intake. ARGV: due (Unix ms, or empty for now), how many of the runs the ledger is to know (the first),
then id and payload of each run. Returns the positions, from 1, of the ids that were taken. Payloads have no expiry: a
run that waits for long is not lost, they go when it is over."""

CANCEL = Script(
    _CLOCK
    + """
local queue, leases, aborts = KEYS[1], KEYS[2], KEYS[3]
local id, may_be_absent = ARGV[1], ARGV[2] == '1'
if redis.call('EXISTS', 'arq:result:' .. id) == 1 then return 0 end
local queued = redis.call('ZSCORE', queue, id)
if not queued and not may_be_absent then return -1 end
local lease_end = redis.call('ZSCORE', leases, id)
local running = lease_end and tonumber(lease_end) > now or redis.call('EXISTS', 'arq:in-progress:' .. id) == 1
if queued and not running then redis.call('ZADD', queue, 'XX', 1, id) end
redis.call('ZADD', aborts, now, id)
return 1
"""
)
"""KEYS: queue, leases, arq's set of aborts. ARGV: id, 1 if it may wait in the ledger only. Returns 1 when the wish was
noted, 0 when the run is over, -1 when Redis does not know it. A run that waits comes first in the queue, as with arq's
own abort(), so that a worker ends it at once."""
