-- A queue. Workers lease jobs; what a worker does not finish in time is handed out again, five times at most.
--
--   ?action=push&payload=…     {"id":1}
--   ?action=lease&seconds=30   {"id":1,"attempt":1,"payload":"…","lease":"…"}, or 204: nothing to do
--   ?action=ack&lease=…        done; 409 where the lease is over and somebody else has the job
--
-- A job is one key, `queue:WHEN:ID`, WHEN being the time in ms from which it may be handed out. To lease a job is to
-- move it into the future. So the first key is always the next job, and nobody has to look for leases that lapsed.
--
-- try: ?action=push&payload=hello

local ATTEMPTS, SECONDS, PAYLOAD_BYTES = 5, 3600, 65536

-- Stops with the error, if there is one, and discards what was written.
local function check(err)
  if err then
    kvdb.abort(403, err)
  end
end

-- Writes a job; answers its lease, which is the end of its key.
local function put(job, when)
  local lease = string.format("%013d:%012d", when, job.id)
  check(kvdb.set("queue:" .. lease, kvdb.json.encode(job)))
  return lease
end

local actions = {}

function actions.push()
  local payload = kvdb.var.payload or ""
  if #payload == 0 or #payload > PAYLOAD_BYTES then
    kvdb.abort(400, "payload: 1 to " .. PAYLOAD_BYTES .. " bytes")
  end
  local err, id = kvdb.incr("queue-last", 1)
  check(err)
  put({id = id, attempt = 0, payload = payload}, kvdb.now())
  kvdb.say(kvdb.json.encode({id = id}))
end

function actions.lease()
  local seconds = tonumber(kvdb.var.seconds or 30)
  -- Written so that it is false for "nan", too.
  if not seconds or not (seconds >= 1 and seconds <= SECONDS) then
    kvdb.abort(400, "seconds: 1 to " .. SECONDS)
  end
  for _ = 1, 100 do
    local entries, err = kvdb.list("queue:", {limit = 1, values = true})
    check(err)
    local key, text = unpack(entries[1] or {})
    if not key or tonumber(string.match(key, "^queue:(%d+):")) > kvdb.now() then
      break
    end
    check(kvdb.delete(key))
    local job = kvdb.json.decode(text)
    if job.attempt < ATTEMPTS then
      job.attempt += 1
      job.lease = put(job, kvdb.now() + math.floor(seconds * 1000))
      kvdb.say(kvdb.json.encode(job))
      return
    end
    check(kvdb.set("queue-dead:" .. job.id, text))
  end
  kvdb.exit(204)
end

function actions.ack()
  local lease = string.match(kvdb.var.lease or "", "^%d+:%d+$")
  if not lease then
    kvdb.abort(400, "lease: what `lease` answered")
  end
  local job, _, err = kvdb.get("queue:" .. lease)
  check(err)
  if not job then
    kvdb.abort(409, "the lease is over")
  end
  check(kvdb.delete("queue:" .. lease))
  kvdb.say("done")
end

local action = actions[kvdb.var.action]
if not action then
  kvdb.abort(400, "action: push, lease or ack")
end
action()
