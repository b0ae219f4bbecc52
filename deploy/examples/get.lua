local value, info, err = kvdb.get("key")
if err then
  kvdb.say("error getting: " .. err)
  return
end

if value == nil then
  kvdb.say("no value")
  return
end

kvdb.say("value: " .. value)
