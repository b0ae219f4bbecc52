local err, value = kvdb.incr("counter/" .. kvdb.var.name, 1)
if err then
  kvdb.abort(400, err)
end
kvdb.say(value)
