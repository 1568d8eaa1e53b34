"""What the engine does inside Redis. Time is Redis's own (``TIME``), never a worker's clock.

A claimed entry stays in the queue's sorted set with the end of its lease as its score, so no claim sees it, while
stock ``Job.result()`` and ``Job.abort()`` still do. Beside the queue ``Q`` stand ``Q:leases`` (job id -> end of the
lease, Unix ms), ``Q:scores`` (job id -> the score it had) and ``Q:owners`` (job id -> token of the worker, a colon and
the number of its claim). Waiting is ``Q`` minus ``Q:leases``. arq's own keys (``arq:in-progress:`` and the like) are
honoured and written; stock workers write ``1`` into ``arq:in-progress:``, these write their token.
"""

from dataclasses import dataclass

from holdfast import wire

MAX_ENTRIES = 200
"""The most entries that one call handles: it keeps Redis busy for about a millisecond."""

CLOCK = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

PLACE = """
local function place(text)
  -- anybody may have written it, and a ZADD that fails leaves a script half done
  local score = tonumber(text)
  if score and score == score then return score end
  return now
end
"""

OWNED = """
local function is_owned_by(token, owner)
  return owner and string.sub(owner, 1, #token) == token
end
"""

TAKE = """
local LONG = string.rep('-', 65)
local function take(ids, original, owner, queue, leases, scores, owners, token, lease_ms, in_progress_ms)
  if #ids == 0 then return end
  local lease_end = string.format('%.0f', now + lease_ms)
  local queued, leased, kept, owned = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    queued[2 * i - 1], queued[2 * i] = lease_end, id
    kept[2 * i - 1], kept[2 * i] = id, original[i]
    owned[2 * i - 1], owned[2 * i] = id, owner[i]
  end
  -- what fails where somebody has given a key another type comes first: a script keeps what it wrote before it failed
  -- a field of over 64 bytes makes a table of what is else a list up to 128 fields, which is searched for each of them
  redis.call('HSET', scores, LONG, '', unpack(kept))
  redis.call('HSET', owners, LONG, '', unpack(owned))
  redis.call('HDEL', scores, LONG)
  redis.call('HDEL', owners, LONG)
  redis.call('ZADD', leases, unpack(queued))
  redis.call('ZADD', queue, unpack(queued))
  for _, id in ipairs(ids) do redis.call('SET', 'arq:in-progress:' .. id, token, 'PX', in_progress_ms) end
end
"""

CLAIM = (
    CLOCK
    + OWNED
    + TAKE
    + """
local queue, leases, scores, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, token = tonumber(ARGV[1]), ARGV[2]
local lease_ms, in_progress_ms, see_aborts, max_bytes = tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1', tonumber(ARGV[6])
if ARGV[7] ~= '' and now > tonumber(ARGV[7]) then return {now, 'late'} end
local anew = token .. ':' .. ARGV[8]
local found
if #ARGV > 8 then
  found = {}
  for i = 9, #ARGV do
    local score = redis.call('ZSCORE', queue, ARGV[i])
    if score and tonumber(score) <= now then
      found[#found + 1] = ARGV[i]
      found[#found + 1] = score
    end
  end
else
  found = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
end
if #found == 0 then return {now} end
local all, original, progress = {}, {}, {}
for i = 1, #found / 2 do
  all[i], original[i] = found[2 * i - 1], found[2 * i]
  progress[i] = 'arq:in-progress:' .. all[i]
end
local lease = redis.call('ZMSCORE', leases, unpack(all))
local busy = redis.call('MGET', unpack(progress))
local ids, firsts, owner_then, payload_keys, retry_keys, run_out, n = {}, {}, {}, {}, {}, {}, 0
for i, id in ipairs(all) do
  local holder = busy[i] == '1' and 'stock' or busy[i]
  local owner = lease[i] and redis.call('HGET', owners, id)
  if lease[i] and tonumber(lease[i]) > now then
    -- stock abort() put a running entry's score back to 1: it is still leased
    redis.call('ZADD', queue, 'XX', lease[i], id)
  elseif holder and holder ~= token and (not lease[i] or owner == 'stock') then
    -- a stock worker has it, or one of ours whose lease Redis lost: out of the way until it is looked at again
    local look_at = now + (holder == 'stock' and 1000 or lease_ms)
    redis.call('HSETNX', scores, id, original[i])
    redis.call('HSET', owners, id, holder)
    redis.call('ZADD', leases, look_at, id)
    redis.call('ZADD', queue, 'XX', look_at, id)
  else
    if lease[i] then original[i] = redis.call('HGET', scores, id) or original[i] end
    n = n + 1
    ids[n], firsts[n] = id, original[i]
    local is_its = owner and is_owned_by(token, owner)
    -- without a number where Redis lost the owner: then any end that this worker tells is that of this claim
    owner_then[n] = is_its and owner or holder == token and token or anew
    if is_its or holder == token then
      run_out[#run_out + 1] = id
      run_out[#run_out + 1] = string.sub(owner_then[n], #token + 2)
    end
    payload_keys[n], retry_keys[n] = 'arq:job:' .. id, 'arq:retry:' .. id
  end
end
if n == 0 then return {now} end
take(ids, firsts, owner_then, queue, leases, scores, owners, token, lease_ms, in_progress_ms)
local payloads, sizes = redis.call('MGET', unpack(payload_keys)), {}
for i, id in ipairs(ids) do
  if payloads[i] then sizes[i] = #payloads[i]
  elseif redis.call('EXISTS', payload_keys[i]) == 1 then sizes[i] = -2
  elseif redis.call('EXISTS', 'arq:result:' .. id) == 1 then sizes[i] = -3
  else sizes[i] = -1 end
  if sizes[i] > max_bytes then payloads[i] = '' end
end
local aborts, some_aborted = {}, 0
if see_aborts and redis.pcall('ZCARD', 'arq:abort') ~= 0 then
  aborts, some_aborted = redis.pcall('ZMSCORE', 'arq:abort', unpack(ids)), 1
end
if aborts.err then aborts = {} end  -- whoever looks is told what is wrong with it
return {now, ids, firsts, payloads, sizes, redis.call('MGET', unpack(retry_keys)), aborts, run_out, some_aborted}
"""
)
"""KEYS: queue, leases, scores, owners. ARGV: limit, token, lease (ms), time to live of in-progress keys (ms), 1 to look
at aborts, the longest payload that is handed out (bytes), the Redis time (ms) after which nothing is claimed any more
(empty: no limit), the number of this claim, then the ids to claim (none: the first that are due). Returns now (ms);
with ``late`` when it came too late; and where anything was claimed: ids, original scores, payloads, their sizes (-1:
missing, -2: not a string, -3: missing because the run is over), retry counters, scores in the abort set (nothing where
it is empty), those ids whose lease was this worker's own and had run out, each with the number of its claim, which it
keeps, and 1 where the abort set holds anything.

A call that was held up on its way must not claim: its caller has given up, and the leases that look dead to it may only
have missed the same stretch of time."""

UNHELD = """
-- No owner: Redis forgot the claim, or the reaper took it back. It is this worker's still unless the run is over
-- (elsewhere) or its id has been used again.
local function still_ours(id, payload)
  if redis.call('EXISTS', 'arq:result:' .. id) == 1 then return false end
  local now_there = redis.call('MGET', 'arq:job:' .. id)[1]
  return not now_there or now_there == payload
end
"""

FINISH = (
    CLOCK
    + PLACE
    + UNHELD
    + """
local queue, leases, scores, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, n, usual_px = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local ids = {}
for i = 1, n do ids[i] = ARGV[4 * i] end
local payloads_at = 3 + 4 * n
local unheld_too = #ARGV > payloads_at
local owner = redis.call('HMGET', owners, unpack(ids))
local told, mine, mine_n = {}, {}, 0
for i, id in ipairs(ids) do
  -- not the token alone: what was said twice must not end the worker's next claim of the entry
  if owner[i] == token .. ':' .. ARGV[4 * i + 1] or owner[i] == token then told[i] = 1
  elseif owner[i] then told[i] = 0
  elseif not unheld_too then told[i] = 2
  elseif still_ours(id, ARGV[payloads_at + i]) then told[i] = 1
  else told[i] = 0 end
  if told[i] == 1 then
    mine_n = mine_n + 1
    mine[mine_n] = id
  end
end
if mine_n == 0 then return told end
-- Redis over its maxmemory refuses only a script's first write: this one frees, so that runs can end
redis.call('ZREM', leases, unpack(mine))
-- Counted: Lua searches for the end of a table each time that it is asked for its length.
local over, left, gone, over_n, left_n, gone_n = {}, {}, {}, 0, 0, 0
for i, id in ipairs(ids) do
  local result, how = ARGV[4 * i + 2], ARGV[4 * i + 3]
  local action, px, delay, keep = 'over', usual_px, '', ''
  if how ~= '' then action, px, delay, keep = string.match(how, '^(%a+),(%d*),(%-?%d*),(%d*)$') end
  if told[i] == 1 then
    if action ~= 'back' then
      if result ~= '' then
        if px == '' then redis.call('SET', 'arq:result:' .. id, result)
        else redis.call('SET', 'arq:result:' .. id, result, 'PX', px) end
      end
      left_n = left_n + 1
      left[left_n] = id
      if action == 'over' then
        over_n = over_n + 1
        over[over_n] = id
      end
      gone[gone_n + 1], gone[gone_n + 2] = 'arq:job:' .. id, 'arq:retry:' .. id
      gone_n = gone_n + 2
    else
      local score = place(redis.call('HGET', scores, id))
      if delay ~= '' then score = now + tonumber(delay) end
      if owner[i] then redis.call('ZADD', queue, 'XX', score, id)
      else
        redis.call('SET', 'arq:job:' .. id, ARGV[payloads_at + i], 'NX')
        redis.call('ZADD', queue, score, id)
      end
      if px ~= '' then redis.call('SET', 'arq:retry:' .. id, px, 'EX', 88400) end
    end
    if keep == '' then
      gone_n = gone_n + 1
      gone[gone_n] = 'arq:in-progress:' .. id
    else redis.call('SET', 'arq:in-progress:' .. id, '1', 'PX', keep) end
  end
end
if left_n > 0 then redis.call('ZREM', queue, unpack(left)) end
if over_n > 0 then redis.pcall('ZREM', 'arq:abort', unpack(over)) end
redis.call('HDEL', scores, unpack(mine))
redis.call('HDEL', owners, unpack(mine))
if gone_n > 0 then redis.call('DEL', unpack(gone)) end
return told
"""
)
"""KEYS as CLAIM. ARGV: token, number of runs, the usual time to live of a result in ms (empty: for ever), then for each
run: id; the number of its claim; the result (empty: none); how it ends. Empty is the usual end, otherwise four words
with commas between: ``over``, ``back``, or ``away``, which takes the entry out and leaves an abort of it; the result's
time to live, for ``back`` the new retry counter (empty: as it was); for ``back`` the delay in ms (empty: its old
place); ms for which the in-progress key is kept (empty: not). Returns for each 1 (done), 0 (another claim has the run,
or it is over) or 2 (nobody has it, nothing was done). Those are handed in once more, with the payloads of all runs
after the last: then they end or go back if they are still this worker's."""


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    queue: str

    def all(self) -> tuple[str, str, str, str]:
        """Return queue, leases, scores and owners, in the scripts' order."""
        return self.queue, self.leases, f"{self.queue}:scores", f"{self.queue}:owners"

    @property
    def leases(self) -> str:
        """The sorted set of claimed entries: job id -> end of its lease, Unix ms."""
        return f"{self.queue}:leases"

    @property
    def quarantine(self) -> str:
        """The hash of parked entries: job id -> JSON with the reason."""
        return f"{self.queue}:quarantine"

    @property
    def bell(self) -> str:
        """The counter that grows when runs of the outbox were committed."""
        return self.queue + wire.BELL_SUFFIX

    @property
    def intake(self) -> str:
        """The list of direct enqueues that the ledger does not know yet."""
        return self.queue + wire.INTAKE_SUFFIX
