local keys, err = kvdb.list("msg:")
if err then
  kvdb.say("error listing keys: " .. err)
  return
end

for _, key in ipairs(keys) do
  local val = kvdb.get(key)
  if val ~= nil then
    kvdb.say(key .. "=" .. val)
  end
end
