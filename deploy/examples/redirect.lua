kvdb.redirect("https://example.com/")
