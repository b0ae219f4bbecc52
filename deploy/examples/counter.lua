-- Counts calls: the key is the parameter `counter`, or "counter".
local err, value = kvdb.incr(kvdb.var.counter or "counter", 1)
if err then
  kvdb.status = 400
  kvdb.say("error incrementing: " .. err)
  return
end

kvdb.say(value)
