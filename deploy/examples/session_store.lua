-- Sessions that end by themselves after half an hour without use.
--
--   ?action=start&user=kim   an id, which nobody can guess
--   ?action=user&id=…        kim, and another half hour; 404 once it is over
--   ?action=end&id=…
--
-- try: ?action=start&user=kim

local SECONDS = 30 * 60

local function check(err)
  if err then
    kvdb.abort(403, err)
  end
end

local function key()
  -- What comes from a caller becomes part of a key only once it looks as it should.
  local id = string.match(kvdb.var.id or "", "^[%w-]+$")
  if not id or #id > 64 then
    kvdb.abort(400, "id: what `start` answered")
  end
  return "session:" .. id
end

local actions = {}

function actions.start()
  local user = string.match(kvdb.var.user or "", "^[%w@._-]+$")
  if not user or #user > 100 then
    kvdb.abort(400, "user: 1 to 100 letters, digits and @ . _ -")
  end
  -- Whether this is really the user is for you to check here.
  local id = kvdb.uuid()
  check(kvdb.set("session:" .. id, user, {ttl = SECONDS}))
  kvdb.print(id)
end

actions["user"] = function()
  local key = key()
  local user, _, err = kvdb.get(key)
  check(err)
  if not user then
    kvdb.abort(404, "no such session")
  end
  check(kvdb.set(key, user, {ttl = SECONDS}))
  kvdb.print(user)
end

actions["end"] = function()
  check(kvdb.delete(key()))
  kvdb.say("ended")
end

local action = actions[kvdb.var.action]
if not action then
  kvdb.abort(400, "action: start, user or end")
end
action()
