kvdb.status = 500
