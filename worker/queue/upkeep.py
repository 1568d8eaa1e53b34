"""What keeps a queue in order inside Redis: renewing, making claims again, giving back, and what dead workers left."""

from worker.queue.scripts import CLOCK, OWNED, PLACE, TAKE, UNHELD

RENEW = (
    CLOCK
    + OWNED
    + """
local queue, leases, owners = KEYS[1], KEYS[2], KEYS[4]
local token, ids = ARGV[1], {}
local lease_end = string.format('%.0f', now + tonumber(ARGV[2]))
for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
local owner = redis.call('HMGET', owners, unpack(ids))
local answer, renewed = {}, {}
for i, id in ipairs(ids) do
  if is_owned_by(token, owner[i]) then
    answer[i] = 1
    renewed[#renewed + 1] = lease_end
    renewed[#renewed + 1] = id
  elseif owner[i] or redis.call('EXISTS', 'arq:result:' .. id) == 1 then
    answer[i] = 0
  else
    answer[i] = 2
  end
end
if #renewed > 0 then
  redis.call('HDEL', owners, token) -- removes nothing, but is a first write that needs no memory, as in FINISH
  redis.call('ZADD', queue, 'XX', unpack(renewed))
  redis.call('ZADD', leases, unpack(renewed))
end
return answer
"""
)
"""KEYS as CLAIM. ARGV: token, lease (ms), then the ids. Returns for each 1 (renewed), 0 (somebody else has it, or it is
over) or 2 (nobody has it)."""

RECLAIM = (
    CLOCK
    + TAKE
    + UNHELD
    + """
local queue, leases, scores, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local again, original, owner, answer = {}, {}, {}, {}
for i = 4, #ARGV, 4 do
  local id, payload = ARGV[i], ARGV[i + 3]
  if not redis.call('HGET', owners, id) and still_ours(id, payload) then
    again[#again + 1], original[#original + 1] = id, redis.call('ZSCORE', queue, id) or ARGV[i + 2]
    owner[#again] = ARGV[1] .. ':' .. ARGV[i + 1]
    redis.call('SET', 'arq:job:' .. id, payload, 'NX')
    answer[#answer + 1] = 1
  else
    answer[#answer + 1] = 0
  end
end
take(again, original, owner, queue, leases, scores, owners, ARGV[1], tonumber(ARGV[2]), ARGV[3])
return answer
"""
)
"""KEYS as CLAIM. ARGV: token, lease (ms), time to live of in-progress keys (ms), then for each running job that nobody
has: id, number of the claim, original score, payload. Returns for each 1 (claimed again) or 0 (it is no longer this
worker's)."""

REAP = (
    CLOCK
    + OWNED
    + PLACE
    + """
local queue, leases, scores, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local damaged = {}
local types = {'zset', 'zset', 'hash', 'hash', 'hash', 'zset', 'list', 'string'}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)
  found = found.ok or found
  if found ~= 'none' and found ~= types[i] then
    redis.call('RENAME', key, key .. ':damaged')
    damaged[#damaged + 1] = key
  end
end
redis.call('HDEL', owners, ARGV[2]) -- removes nothing, but a master that was demoted refuses it
-- aborts that met no job in a week; where there is a payload, the job may be another namespace's
local unmet = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - 604800000, 'LIMIT', 0, tonumber(ARGV[1]))) do
  if redis.call('EXISTS', 'arq:job:' .. id) == 0 then unmet[#unmet + 1] = id end
end
if #unmet > 0 then redis.call('ZREM', KEYS[6], unpack(unmet)) end
local found = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[1]))
if #found == 0 then return {damaged, {}} end
local ids, ends = {}, {}
for i = 1, #found, 2 do ids[#ids + 1], ends[#ends + 1] = found[i], tonumber(found[i + 1]) end
local original = redis.call('HMGET', scores, unpack(ids))
local queued = redis.call('ZMSCORE', queue, unpack(ids))
local owner = redis.call('HMGET', owners, unpack(ids))
local reaped, back, gone, over = {}, {}, {}, {}
for i, id in ipairs(ids) do
  if not is_owned_by(ARGV[2], owner[i]) then
    over[#over + 1] = id
    if queued[i] and tonumber(queued[i]) == ends[i] then -- else it was put elsewhere since: by a stock retry, an abort
      back[#back + 1] = place(original[i])
      back[#back + 1] = id
    end
    if queued[i] and owner[i] ~= 'stock' then
      gone[#gone + 1] = 'arq:in-progress:' .. id
      reaped[#reaped + 1] = id
    end
  end
end
if #back > 0 then redis.call('ZADD', queue, 'XX', unpack(back)) end
if #over > 0 then
  redis.call('ZREM', leases, unpack(over))
  redis.call('HDEL', scores, unpack(over))
  redis.call('HDEL', owners, unpack(over))
end
if #gone > 0 then redis.call('DEL', unpack(gone)) end
return {damaged, reaped}
"""
)
"""KEYS as CLAIM, then quarantine, abort set, intake and bell. ARGV: limit, token. Puts keys of a wrong type out of the
way (``:damaged``) and entries whose lease is over to their old place; those of the caller itself stay its own, it may
still run them. Returns the names of those keys, and the ids."""

RECOVER = (
    CLOCK
    + OWNED
    + PLACE
    + """
local queue, leases, scores, owners = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, amnesty_ms, held, back, spared = ARGV[1], tonumber(ARGV[2]), {}, 0, 0
for i = 3, #ARGV do held[ARGV[i]] = true end
local owned = redis.call('HGETALL', owners)
for i = 1, #owned, 2 do
  local id = owned[i]
  if is_owned_by(token, owned[i + 1]) and not held[id] then
    redis.call('ZREM', leases, id)
    redis.call('ZADD', queue, 'XX', place(redis.call('HGET', scores, id)), id)
    redis.call('HDEL', scores, id)
    redis.call('HDEL', owners, id)
    redis.call('DEL', 'arq:in-progress:' .. id)
    back = back + 1
  end
end
if amnesty_ms > 0 then
  local lease_end = string.format('%.0f', now + amnesty_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
    redis.call('ZADD', queue, 'XX', lease_end, id)
    redis.call('ZADD', leases, 'XX', lease_end, id)
    spared = spared + 1
  end
end
return {back, spared}
"""
)
"""KEYS as CLAIM. ARGV: token, lease (ms) or 0, then the ids that this worker holds. Gives back what was claimed by a
call whose answer never came; with a lease, those that ran out are valid for that long again: after an outage it cannot
be told which of their owners live. Returns how many went back, and how many are valid again."""

PARK = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
"""KEYS: quarantine. ARGV: id, what is kept of the entry, the most entries. Returns 1, or 0 when it is full."""
