-- A shopping cart that only its owner sees and changes: called with a token of shopping_cart_open.lua.
--
--   ?action=add&item=apple&n=2   ?action=remove&item=apple   ?action=show
--
-- There is no check here of whose cart it is, and none is needed: `kvdb.scope` begins as what the token grants, so
-- beyond the token's prefix every call of `kvdb` is refused, whatever the parameters say.
--
-- try: ?action=add&item=apple&n=1

local prefix = kvdb.scope.prefix .. "item:"

local function check(err)
  if err then
    kvdb.abort(403, err)
  end
end

local function key()
  local item = string.match(kvdb.var.item or "", "^[%w_-]+$")
  if not item or #item > 100 then
    kvdb.abort(400, "item: 1 to 100 letters, digits, _ and -")
  end
  return prefix .. item
end

local actions = {}

function actions.add()
  local n = tonumber(kvdb.var.n or 1)
  if not n or n % 1 ~= 0 or n < 1 or n > 100 then
    kvdb.abort(400, "n: a whole number from 1 to 100")
  end
  check(kvdb.incr(key(), n))
end

function actions.remove()
  check(kvdb.delete(key()))
end

function actions.show()
end

local action = actions[kvdb.var.action]
if not action then
  kvdb.abort(400, "action: add, remove or show")
end
action()

-- Whatever was done, the cart as it is now: a script sees its own writes.
local entries, err = kvdb.list(prefix, {limit = 1000, values = true})
check(err)
local cart = {}
for _, entry in ipairs(entries) do
  cart[string.sub(entry[1], #prefix + 1)] = tonumber(entry[2])
end
kvdb.say(kvdb.json.encode(cart))
