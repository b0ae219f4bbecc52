kvdb.exit(403) -- forbidden
