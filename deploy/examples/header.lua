kvdb.header["content-type"] = "text/html"
kvdb.say("<h1>Hello, world!</h1>")
