local cart = kvdb.json.decode(kvdb.req.body)
local total = 0
for _, item in ipairs(cart.items) do
  total = total + item.price * item.count
end
cart.total = total
kvdb.set("cart/" .. cart.user, kvdb.json.encode(cart))
kvdb.say(total)
