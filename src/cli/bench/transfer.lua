-- Moves an amount from one account to another, or does nothing: `kvdb bench --script transfer`.
local from, to, n = kvdb.var.from, kvdb.var.to, tonumber(kvdb.var.n)
if from == to then
  kvdb.abort(400, "two accounts are needed")
end
local have, held = tonumber((kvdb.get(from))), tonumber((kvdb.get(to)))
if not have or not held then
  kvdb.abort(404, "no such account")
end
if have < n then
  kvdb.abort(409, "only " .. have .. " in " .. from)
end
kvdb.set(from, have - n)
kvdb.set(to, held + n)
kvdb.say(have - n)
