local err = kvdb.delete("key")
if err then
  kvdb.say("error deleting key: " .. err)
end
