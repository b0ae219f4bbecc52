-- Which features are on for a user: {"dark_mode":true,"new_checkout":false}
--
-- A flag is a key, set from anywhere: PUT /BUCKET/flag:dark_mode with `on`, `off`, or the percentage of
-- users to have it.
--
-- Uploaded with `readonly`: it cannot write, and every node answers it by itself, without asking the leader to run it.
--
-- upload: ?readonly=true
-- try: ?user=kim

local user = kvdb.var.user or ""
if #user == 0 or #user > 100 then
  kvdb.abort(400, "user: 1 to 100 bytes")
end

local function is_on(name, setting)
  if setting == "on" then
    return true
  end
  -- The same user gets the same answer each time, and each flag has other users.
  local digest = kvdb.sha256(name .. ":" .. user)
  return tonumber(string.sub(digest, 1, 8), 16) % 100 < (tonumber(setting) or 0)
end

local entries, err = kvdb.list("flag:", {limit = 1000, values = true})
if err then
  kvdb.abort(403, err)
end
local flags = {}
for _, entry in ipairs(entries) do
  local name = string.sub(entry[1], #"flag:" + 1)
  flags[name] = is_on(name, entry[2])
end
kvdb.header["content-type"] = "application/json"
kvdb.say(kvdb.json.encode(flags))
