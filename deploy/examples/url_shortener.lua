-- Short links.
--
--   ?url=https://example.com/a/long/one   a code of six letters
--   ?code=…                               a redirect there, which is counted in `hits:CODE`
--
-- try: ?url=https://example.com/

local LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"

local function follow(code)
  local url = #code <= 16 and string.match(code, "^%w+$") and kvdb.get("url:" .. code)
  if not url then
    kvdb.abort(404, "no such code")
  end
  -- A redirect is a success: what was written before it stays.
  kvdb.incr("hits:" .. code, 1)
  kvdb.redirect(url)
end

local function draw()
  local code = ""
  for _ = 1, 6 do
    local n = math.random(#LETTERS)
    code ..= string.sub(LETTERS, n, n)
  end
  return code
end

local function shorten(url)
  -- No `javascript:`, and nothing that could end a header.
  if #url > 2000 or not string.match(url, "^https?://%w[%w%p]*$") then
    kvdb.abort(400, "url: http:// or https://, at most 2000 bytes")
  end
  local err
  for _ = 1, 10 do
    local code = draw()
    err = kvdb.set("url:" .. code, url, {if_absent = true})
    if not err then
      kvdb.print(code)
      return
    end
  end
  kvdb.abort(403, err)
end

if kvdb.var.code then
  follow(kvdb.var.code)
else
  shorten(kvdb.var.url or "")
end
