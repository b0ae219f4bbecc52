-- The best score of each player, and who leads.
--
--   ?action=submit&player=kim&score=42   {"player":"kim","best":42}
--   ?action=top&n=10                     [{"player":"kim","score":42}]
--
-- Two keys for each player: `best:PLAYER`, and `rank:SCORE:PLAYER` with the score in as many digits as there may be, so
-- that byte order is the order of scores. Both change in one call or not at all: they never disagree.
--
-- try: ?action=submit&player=kim&score=42

local SCORE_MAX, TOP_MAX = 999999999999, 100

local function check(err)
  if err then
    kvdb.abort(403, err)
  end
end

local function whole(name, min, max)
  local number = tonumber(kvdb.var[name] or "")
  if not number or number % 1 ~= 0 or number < min or number > max then
    kvdb.abort(400, string.format("%s: a whole number from %d to %d", name, min, max))
  end
  return number
end

local function rank(score, player)
  return string.format("rank:%012d:%s", score, player)
end

local actions = {}

function actions.submit()
  local player = string.match(kvdb.var.player or "", "^[%w_-]+$")
  if not player or #player > 32 then
    kvdb.abort(400, "player: 1 to 32 letters, digits, _ and -")
  end
  local score = whole("score", 0, SCORE_MAX)
  local best, _, err = kvdb.get("best:" .. player)
  check(err)
  best = tonumber(best)
  if not best or score > best then
    if best then
      check(kvdb.delete(rank(best, player)))
    end
    check(kvdb.set("best:" .. player, score))
    check(kvdb.set(rank(score, player), ""))
    best = score
  end
  kvdb.say(kvdb.json.encode({player = player, best = best}))
end

function actions.top()
  local keys, err = kvdb.list("rank:", {limit = whole("n", 1, TOP_MAX), reverse = true})
  check(err)
  local top = {}
  for i, key in ipairs(keys) do
    local score, player = string.match(key, "^rank:(%d+):(.*)$")
    top[i] = {player = player, score = tonumber(score)}
  end
  -- An empty table would be an object in JSON.
  kvdb.say(kvdb.json.encode(if #top > 0 then top else kvdb.json.empty_array))
end

local action = actions[kvdb.var.action]
if not action then
  kvdb.abort(400, "action: submit or top")
end
action()
