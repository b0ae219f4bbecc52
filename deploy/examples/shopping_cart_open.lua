-- Opens a shopping cart, to anybody: answers a token, good for a week and for this cart only.
--
-- Uploaded with `run_as=owner`: whoever calls may do nothing in this bucket by themselves. The script may do everything
-- and hands out a small part of it. The bucket needs a `signing_key`.
--
-- upload: ?run_as=owner

local token, err = kvdb.access_token({
  prefix = "cart:" .. kvdb.uuid() .. ":",
  -- Keys below the prefix, and no script but this one.
  permissions = {"read", "write", "delete", "enumerate", "execute:shopping_cart"},
  ttl = 7 * 24 * 60 * 60,
})
if err then
  kvdb.abort(500, err)
end
-- The token is valid once this call has committed, which is before anybody sees the answer.
kvdb.print(token)
