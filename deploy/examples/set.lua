local err = kvdb.set("key", "my value")
if err then
  kvdb.say("error setting: " .. err)
end
