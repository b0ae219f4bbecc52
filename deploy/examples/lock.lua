-- Locks that a crashed holder cannot keep, with fencing tokens.
--
--   ?action=acquire&name=n&seconds=30           {"token":7}; 409 while somebody else holds it
--   ?action=renew&name=n&token=7&seconds=30     409 once it is no longer yours
--   ?action=release&name=n&token=7
--
-- Each acquisition gets a larger token than all before it. Send it along to whatever the lock guards, and let that
-- refuse a token smaller than the largest that it has seen. Then a holder that was asleep while its lease ended does no
-- harm when it wakes up; a lock by itself cannot promise that.
--
-- try: ?action=acquire&name=demo&seconds=30

local SECONDS = 3600

local name = string.match(kvdb.var.name or "", "^[%w._-]+$")
if not name or #name > 100 then
  kvdb.abort(400, "name: 1 to 100 letters, digits and . _ -")
end
local key = "lock:" .. name

local function check(err)
  if err then
    kvdb.abort(403, err)
  end
end

local function lease()
  local seconds = tonumber(kvdb.var.seconds or 30)
  if not seconds or seconds % 1 ~= 0 or seconds < 1 or seconds > SECONDS then
    kvdb.abort(400, "seconds: a whole number from 1 to " .. SECONDS)
  end
  return {ttl = seconds}
end

local function need_to_hold()
  local token = kvdb.get(key)
  if not token or token ~= kvdb.var.token then
    kvdb.abort(409, "the lock is not yours, or not any more")
  end
  return token
end

local actions = {}

function actions.acquire()
  local options = lease()
  -- Between this look and the write below nothing happens: a call is one transaction.
  local holder, info = kvdb.get(key)
  if holder then
    kvdb.abort(409, "held for another " .. (info.ttl or 0) .. " s")
  end
  local err, token = kvdb.incr("fence:" .. name, 1)
  check(err)
  check(kvdb.set(key, token, options))
  kvdb.say(kvdb.json.encode({token = token}))
end

function actions.renew()
  check(kvdb.set(key, need_to_hold(), lease()))
  kvdb.say("renewed")
end

function actions.release()
  need_to_hold()
  check(kvdb.delete(key))
  kvdb.say("released")
end

local action = actions[kvdb.var.action]
if not action then
  kvdb.abort(400, "action: acquire, renew or release")
end
action()
