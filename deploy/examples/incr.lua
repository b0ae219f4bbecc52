local key = os.date("visitors:%Y-%m-%d")
local err = kvdb.incr(key, 1)
if err then
  kvdb.say("error incrementing: " .. err)
  return
end

local value = kvdb.get(key)
kvdb.say("visitors today: " .. value)
