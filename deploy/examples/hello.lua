kvdb.say("Hello " .. kvdb.var.name)
