local from, to = "account/" .. kvdb.var.from, "account/" .. kvdb.var.to
local amount = tonumber(kvdb.var.amount)
local left = tonumber(kvdb.get(from) or 0) - amount
if left < 0 then
  kvdb.abort(409, "not enough")
end
kvdb.set(from, left)
kvdb.set(to, tonumber(kvdb.get(to) or 0) + amount)
kvdb.say(left)
