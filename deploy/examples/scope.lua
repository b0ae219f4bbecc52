kvdb.say("scope prefix: " .. kvdb.scope.prefix)

kvdb.print("scope permissions: ")
for i, p in ipairs(kvdb.scope.permissions) do
  kvdb.print(p .. " ")
end
kvdb.say("")

-- only allow read-write operations to a subset of the database
kvdb.scope.prefix = "users:1:"
kvdb.scope.permissions = {"read", "write"}

kvdb.set("users:1:name", "bob")
local err = kvdb.set("users:2:name", "kim") -- this will return an error
kvdb.say("error setting: " .. err)
