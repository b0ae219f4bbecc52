kvdb.print("Hello, world!\n")
kvdb.say("Hello, world!")
