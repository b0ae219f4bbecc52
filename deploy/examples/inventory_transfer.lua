-- Moves stock from one place to another: all items or none.
--
--   ?from=west&to=east&items={"apple":2,"pear":1}    (percent-encoded, or as a form: curl --data-urlencode)
--
-- `stock:PLACE:ITEM` is how many there are. Nothing is ever lost or made: the sum over all places stays the same.
--
-- try: ?from=west&to=east&items=%7B%22apple%22:1%7D

local ITEMS, COUNT = 100, 1000000

local function named(what, text)
  if type(text) ~= "string" or #text > 100 or not string.match(text, "^[%w_-]+$") then
    kvdb.abort(400, what .. ": 1 to 100 letters, digits, _ and -")
  end
  return text
end

local function add(place, item, n)
  local err = kvdb.incr("stock:" .. place .. ":" .. item, n)
  if err then
    kvdb.abort(403, err)
  end
end

local from, to = named("from", kvdb.var.from), named("to", kvdb.var.to)
local items = kvdb.json.decode(kvdb.var.items or "")
if type(items) ~= "table" or from == to then
  kvdb.abort(400, 'two places, and items: {"apple":2}')
end

local kinds = 0
for item, n in pairs(items) do
  named("item", item)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 1 or n > COUNT then
    kvdb.abort(400, item .. ": a whole number from 1 to " .. COUNT)
  end
  local have = tonumber(kvdb.get("stock:" .. from .. ":" .. item) or 0)
  if not have or have < n then
    -- What was moved before it, in this call, is discarded with everything else.
    kvdb.abort(409, "only " .. (have or 0) .. " of " .. item .. " in " .. from)
  end
  add(from, item, -n)
  add(to, item, n)
  kinds += 1
  if kinds > ITEMS then
    kvdb.abort(400, "at most " .. ITEMS .. " kinds at once")
  end
end
kvdb.say("moved " .. kinds .. " kinds from " .. from .. " to " .. to)
