"""What redis_store.py has Redis do: four scripts in Lua, each of them atomic, over the three keys of one partition.

Per partition there are, in one hash slot: `index`, a hash of base, latest and generation and, under ":" + session, of the `applied` of
its versions in ascending order; `states`, a hash of the packed states by "applied session", an empty one for the end of a session;
`ended`, the set of sessions whose end was prepared last. A hole in them is found, never taken for a session that was not there.
COMMON comes before each. Arguments of all: checkpoint ("": none), offset and generation of the claim; the answer is a status and what
belongs to it. Lua's numbers are doubles: offsets and generations are below 2**53, and kept as the text they came in.
"""

COMMON = """
local index, states, ended = unpack(KEYS)
local checkpoint, offset, generation = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local base, latest, claimed = unpack(redis.call('HMGET', index, 'base', 'latest', 'generation'))
local known = base and (checkpoint == base or checkpoint == latest)

local function refusal()
  if claimed and tonumber(generation) < tonumber(claimed) then return {'fenced', claimed} end
  if not known then return {'lost', base, latest} end
end

local function sessions()
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', index)) do
    if string.sub(field, 1, 1) == ':' then table.insert(found, string.sub(field, 2)) end
  end
  return found
end

local function versions(session)
  return redis.call('HGET', index, ':' .. session) or ''
end

-- The applied of the version that is true at the claim, or nil.
local function true_version(session)
  local found
  for applied in string.gmatch(versions(session), '%S+') do
    if tonumber(applied) < offset then found = applied end
  end
  return found
end

local function is_there(session, applied)
  return redis.call('HEXISTS', states, applied .. ' ' .. session) == 1
end

-- Drops every version but the true one, and the session when that is its end. Returns what true_version does after it.
local function keep_true(session)
  local before, kept = versions(session), true_version(session)
  if kept and is_there(session, kept) and redis.call('HSTRLEN', states, kept .. ' ' .. session) == 0 then kept = nil end
  for applied in string.gmatch(before, '%S+') do
    if applied ~= kept then redis.call('HDEL', states, applied .. ' ' .. session) end
  end
  if not kept then
    redis.call('HDEL', index, ':' .. session)
  elseif kept ~= before then
    redis.call('HSET', index, ':' .. session, kept)
  end
  return kept
end

local function keep_all_true()
  for _, session in ipairs(sessions()) do keep_true(session) end
  redis.call('DEL', ended)
end

-- Session, applied and state, in threes from an argument on.
local function write(first)
  for i = first, #ARGV, 3 do
    local session, applied, state = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local kept = keep_true(session)
    redis.call('HSET', index, ':' .. session, kept and kept .. ' ' .. applied or applied)
    redis.call('HSET', states, applied .. ' ' .. session, state)
    if state == '' then redis.call('SADD', ended, session) end
  end
end

local function take_over()
  redis.call('HSET', index, 'base', checkpoint, 'latest', checkpoint, 'generation', generation)
end
"""

CLAIM = """
if not known then return {'lost', base, latest} end
for _, session in ipairs(sessions()) do
  local applied = true_version(session)
  if applied and not is_there(session, applied) then return {'hole', session} end
end
keep_all_true()
take_over()
return {'ok', ''}
"""

LOAD = """
local refused, session = refusal(), ARGV[4]
if refused then return refused end
local applied = true_version(session)
local state = applied and redis.call('HGET', states, applied .. ' ' .. session)
if applied and not state then return {'hole', session} end
return {'ok', state or ''}
"""

# The first write must be one that Redis refuses when its memory is full: after any other it lets a script finish.
PREPARE = """
local refused = refusal()
if refused then return refused end
redis.call('HSET', index, 'base', checkpoint, 'latest', ARGV[4])
if latest == checkpoint then
  for _, session in ipairs(redis.call('SMEMBERS', ended)) do keep_true(session) end
  redis.call('DEL', ended)
else
  keep_all_true()
end
write(5)
return {'ok', ''}
"""

# In parts, for which one restorer must not be mixed with another. Until the last part there is no base, so that nobody is let in.
RESTORE = """
local restorer, part = ARGV[4], ARGV[5]
if part == 'first' then
  local before = base and #sessions() or 0
  redis.call('UNLINK', index, states, ended)
  redis.call('HSET', index, 'restorer', restorer)
  return {'ok', before}
end
if redis.call('HGET', index, 'restorer') ~= restorer then return {'overtaken'} end
write(6)
if part == 'last' then
  keep_all_true()
  take_over()
end
return {'ok', ''}
"""
