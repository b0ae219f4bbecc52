-- At most 5 calls a minute from each address; beyond that 429.
--
-- upload: ?run_as=owner
-- try: ?

local CALLS, SECONDS = 5, 60

-- The caller's own address; no parameter can fake it.
local key = "rate:" .. kvdb.var.remote_addr

local function check(err)
  if err then
    kvdb.abort(500, err)
  end
end

-- The first call makes the counter, with a time to live: the window. Counting leaves that as it is.
if not kvdb.get(key) then
  check(kvdb.set(key, 0, {ttl = SECONDS}))
end
local err, calls = kvdb.incr(key, 1)
check(err)

if calls > CALLS then
  -- A status of 400 or above discards what a script wrote. What is counted here is to stay: `commit`.
  kvdb.incr("rate-refused", 1)
  kvdb.commit()
  kvdb.status = 429
  local _, info = kvdb.get(key)
  kvdb.say("too many calls, try again in " .. (info.ttl or SECONDS) .. " s")
  return
end

kvdb.say(CALLS - calls .. " calls left")
