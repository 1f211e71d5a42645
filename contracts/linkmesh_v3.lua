#!lua name=linkmesh_v3

-- Each change to a link in Redis, as one step. The rules R1 to R6, R8, O1 and O3 stand in docs/PROTOCOLS.md; keys, values
-- and replies in contracts/cache.py. This text is never changed once it was released, and never loaded with REPLACE: a
-- changed body is linkmesh_v3, so that old and new processes run side by side.
--
-- Every write goes through a key of KEYS, all under one slot tag. Functions that end in a refusal write nothing.

local HEADER = '>BBI8c16' -- format, state, version, event_id: fixed for all formats of values
local HEADER_BYTES = 26
local DELETED = 2
local SEEN_MS = 86400000
local HOUR_MS = 3600000
local MINUTE_MS = 60000

-- R6: shares of maxmemory
local SHORTEN_FROM = 0.50
local SHORTEST_FROM = 0.70 -- fills stop, too
local CREATES_STOP_AT = 0.85
local CHANGES_STOP_AT = 0.95
-- O3: share of the outbox budget that creates may use; the rest is the reserve of updates and deletes
local CREATES_OF_BUDGET = 0.90
local OUTBOX_OF_MEMORY = 0.40 -- the budget that nobody has set: each event has its link beside it, of half its size
local BUCKETS = 16

local MEMORY_LOOK_MS = 100 -- INFO costs more than a whole mutation, and memory does not fill in a tenth of a second
local memory = { at = 0, share = 0, limit = 0 }
local RUN_LOOK_MS = 100 -- a server cannot be made a replica, be synchronised and be promoted again in so little time
local run = { at = 0, name = nil } -- of this server: what a library remembers is at most as old as the process

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The share of maxmemory in use; 0 when there is no maximum.
local function memory_share()
  local now = now_ms()
  if now < memory.at or now - memory.at >= MEMORY_LOOK_MS then
    local info = redis.call('INFO', 'memory')
    local used = tonumber(string.match(info, '\nused_memory:(%d+)') or string.match(info, 'used_memory:(%d+)'))
    local limit = tonumber(string.match(info, '\nmaxmemory:(%d+)') or '0')
    memory.limit = limit
    memory.share = limit > 0 and used / limit or 0
    memory.at = now
  end
  return memory.share
end

-- R8: the name of this run. The run id alone would not do: a master that is made a replica, takes another one's data and
-- is promoted again keeps it, but not its replication id.
local function look_at_run()
  local info = redis.call('INFO', 'server', 'replication')
  run.name = string.match(info, '\nrun_id:(%w+)') .. ':' .. string.match(info, '\nmaster_replid:(%w+)')
  run.at = now_ms()
  return run.name
end

local function run_name()
  local age = now_ms() - run.at
  return age >= 0 and age < RUN_LOOK_MS and run.name or look_at_run()
end

-- R8: whether the caller means another run of this server than this one. '' is a caller that does not ask.
local function is_another_run(told)
  return told ~= '' and told ~= run_name()
end

-- R8: whether what is stored here may be older than what was acknowledged, so that the caller must not judge on it: this
-- is another run than the one it means, or it was emptied since everything was put back into it.
local function may_have_forgotten(told, restored_key)
  return is_another_run(told) or (told ~= '' and redis.call('GET', restored_key) ~= told)
end

-- The header and the bytes of a value; nil when there is none, or something that is no value: to write over it is right.
local function read(key)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'string' or #value < HEADER_BYTES then
    return nil
  end
  local format, state, version, event_id = struct.unpack(HEADER, value)
  if format == 0 or version < 1 then
    return nil
  end
  return { state = state, version = version, event_id = event_id, value = value }
end

local function header_of(value)
  local _, state, version, event_id = struct.unpack(HEADER, value)
  return { state = state, version = version, event_id = event_id, value = value }
end

-- For how long a persisted value stays. The jitter (0.8 to 1.2) comes from the random end of its event_id; a tombstone
-- has none: it stays for the whole time.
local function ttl_ms(entry, wanted_ms)
  local share = memory_share()
  local longest = wanted_ms
  if share >= SHORTEST_FROM then
    longest = math.min(wanted_ms, MINUTE_MS)
  elseif share >= SHORTEN_FROM then
    longest = math.min(wanted_ms, HOUR_MS)
  end
  if entry.state == DELETED then
    return longest
  end
  local high, low = string.byte(entry.event_id, 15, 16)
  return math.floor(longest * (0.8 + 0.4 * (high * 256 + low) / 65535))
end

local function holds(lease_key, token)
  return token ~= '' and redis.call('GET', lease_key) == token
end

-- What has no room for one more mutation, or nil.
local function full(is_create, outbox_key, outbox_bytes_max)
  if memory_share() >= (is_create and CREATES_STOP_AT or CHANGES_STOP_AT) then
    return 'memory'
  end
  local budget = outbox_bytes_max > 0 and outbox_bytes_max or math.floor(memory.limit * OUTBOX_OF_MEMORY / BUCKETS)
  if budget > 0 then
    local bytes = redis.call('MEMORY', 'USAGE', outbox_key) or 0
    if bytes >= budget * (is_create and CREATES_OF_BUDGET or 1) then
      return 'outbox'
    end
  end
  return nil
end

-- R1. KEYS: url, lease, seen, outbox, restored. The order of the checks is the rule.
local function mutate(keys, args)
  local url, lease, seen, outbox = keys[1], keys[2], keys[3], keys[4]
  local base_version, event_id, token = tonumber(args[1]), args[2], args[3]
  local generated, not_after_ms, remember = args[4] == '1', tonumber(args[5]), args[6] == '1'
  local outbox_bytes_max, value, event, told_run = tonumber(args[7]), args[8], args[9], args[10]
  local is_create = base_version == 0
  local new = header_of(value)
  if new.version ~= base_version + 1 or new.event_id ~= event_id then
    return redis.error_reply('ERR the value is not the next version of its base, or of another event')
  end

  local result = redis.call('GET', seen)
  if result then
    return { 'REPEATED', result }
  end
  local stored = read(url)
  if stored and stored.event_id == event_id then
    return { 'REPEATED', stored.value }
  end
  if may_have_forgotten(told_run, keys[5]) then
    return { 'OTHER_RUN' } -- before LATE, which would say that the event was never applied
  end
  if not_after_ms > 0 and now_ms() > not_after_ms then
    return { 'LATE' }
  end
  if stored then
    if stored.version ~= base_version then
      return { 'CONFLICT' }
    end
  elseif not (generated and is_create) and not holds(lease, token) then
    return { 'LEASE_NEEDED' }
  end
  local what = full(is_create, outbox, outbox_bytes_max)
  if what then
    return { 'FULL', what }
  end

  redis.call('SET', url, value) -- no expiry: R4 gives it one when the tables hold this version
  redis.call('XADD', outbox, '*', 'e', event)
  if remember then
    redis.call('SET', seen, value, 'PX', SEEN_MS)
  end
  redis.call('DEL', lease)
  return { 'APPLIED' }
end

-- R2. KEYS: url, lease, restored. At the limit of memory nobody gets a lease: nothing could be written under it.
local function lease(keys, args)
  if may_have_forgotten(args[3], keys[3]) then
    return { 'OTHER_RUN' }
  end
  local stored = read(keys[1])
  if stored then
    return { 'PRESENT', stored.value }
  end
  if memory_share() < CHANGES_STOP_AT and redis.call('SET', keys[2], args[1], 'NX', 'PX', args[2]) then
    return { 'GRANTED' }
  end
  return { 'HELD' }
end

-- As if the lease had expired. KEYS: lease.
local function release(keys, args)
  if holds(keys[1], args[1]) then
    redis.call('DEL', keys[1])
    return { 'RELEASED' }
  end
  return { 'NOTHING' }
end

-- R3. KEYS: url, lease.
local function fill(keys, args)
  local stored = read(keys[1])
  if stored then
    return { 'PRESENT', stored.value }
  end
  if is_another_run(args[4]) or not holds(keys[2], args[1]) then
    return { 'ABSENT' }
  end
  if memory_share() < SHORTEST_FROM then
    redis.call('SET', keys[1], args[2], 'PX', ttl_ms(header_of(args[2]), tonumber(args[3])))
    redis.call('DEL', keys[2])
    return { 'STORED' }
  end
  redis.call('DEL', keys[2])
  return { 'ABSENT' }
end

-- R4. KEYS: url, lease.
local function persisted(keys, args)
  local told, stored = header_of(args[1]), read(keys[1])
  if not stored then
    return { 'ABSENT' }
  end
  if stored.version > told.version then
    return { 'NEWER' }
  end
  if stored.version < told.version then
    redis.call('SET', keys[1], told.value, 'PX', ttl_ms(told, tonumber(args[2])))
    redis.call('DEL', keys[2])
    return { 'REPAIRED' }
  end
  if stored.event_id ~= told.event_id then
    return { 'OTHER' }
  end
  redis.call('PEXPIRE', keys[1], ttl_ms(stored, tonumber(args[2])))
  return { 'EXPIRING' }
end

-- R8. KEYS: url, lease, restored. Only for this very run, and only until it is restored: what is put back late could be
-- older than a change that was made, written to the tables and forgotten here meanwhile.
local function restore(keys, args)
  if is_another_run(args[2]) or redis.call('GET', keys[3]) == args[2] then
    return { 'OVER' }
  end
  local told, stored = header_of(args[1]), read(keys[1])
  if stored and stored.version >= told.version then
    return { 'NOTHING' }
  end
  redis.call('SET', keys[1], told.value)
  redis.call('DEL', keys[2])
  return { 'STORED' }
end

-- R8: this server's run, and whether it is restored. KEYS: restored.
local function standing(keys)
  local name = look_at_run()
  return { redis.call('GET', keys[1]) == name and 'RESTORED' or 'CHANGED', name }
end

-- R8: everything was put back into this run. KEYS: restored, unsettled. What still needs an expiry, if anything does, is
-- noted in the same step.
local function restored(keys, args)
  if is_another_run(args[1]) then
    return { 'OVER' }
  end
  if args[2] ~= '' then
    redis.call('SET', keys[2], args[2])
  end
  redis.call('SET', keys[1], args[1])
  return { 'RESTORED' }
end

-- R8: how far the log went at a moment that this run has lived through, restored. KEYS: restored, noted.
local function note(keys, args)
  if is_another_run(args[1]) or redis.call('GET', keys[1]) ~= args[1] then
    return { 'OVER' }
  end
  redis.call('SET', keys[2], args[2])
  return { 'NOTED' }
end

-- R8: what was unsettled is settled, if it is still the same. KEYS: unsettled.
local function settled(keys, args)
  if redis.call('GET', keys[1]) == args[1] then
    redis.call('DEL', keys[1])
    return { 'SETTLED' }
  end
  return { 'NOTHING' }
end

-- O1. KEYS: relay:leader.
local function lead(keys, args)
  local leader = redis.call('GET', keys[1])
  if leader and leader ~= args[1] then
    return { 'FOLLOWING' }
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return { 'LEADING' }
end

local function resign(keys, args)
  if redis.call('GET', keys[1]) == args[1] then
    redis.call('DEL', keys[1])
    return { 'RESIGNED' }
  end
  return { 'NOTHING' }
end

-- O1. KEYS: outbox. What was sent stood in this very run: another one has other entries at the same positions, when its
-- clock is behind.
local function trim(keys, args)
  if is_another_run(args[2]) then
    return { 'OTHER_RUN' }
  end
  redis.call('XTRIM', keys[1], 'MINID', args[1])
  return { 'TRIMMED' }
end

-- O1: an entry that nobody can read stays for a person. KEYS: outbox-aside.
local function set_aside(keys, args)
  redis.call('XADD', keys[1], '*', 'e', args[1], 'at', args[2])
  return { 'KEPT' }
end

-- allow-oom: at the limit these still must answer (a repeat its result, a present value), set expiries that free memory,
-- and keep the relay going, which frees the most. What may not grow memory refuses by itself, above.
local at_the_limit = { 'allow-oom' }
redis.register_function({ function_name = 'linkmesh_v3_mutate', callback = mutate, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_lease', callback = lease, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_release', callback = release, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_fill', callback = fill, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_persisted', callback = persisted, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_lead', callback = lead, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_resign', callback = resign, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_trim', callback = trim, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_restore', callback = restore, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_standing', callback = standing, flags = { 'no-writes' } })
redis.register_function({ function_name = 'linkmesh_v3_restored', callback = restored, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_note', callback = note, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_settled', callback = settled, flags = at_the_limit })
redis.register_function({ function_name = 'linkmesh_v3_set_aside', callback = set_aside, flags = at_the_limit })
