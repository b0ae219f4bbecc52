// A client of the hosted service, and what its users do with it. Nothing here knows of our own additions but the last part.
//
// usage: node client.mjs BASE_URL

import assert from 'node:assert/strict'

const BASE = process.argv[2] ?? 'https://kvdb.io'

/// A bucket as application code has it: an id, and perhaps a key or a token.
function bucket(id, credential) {
  const url = (path, params) => {
    const query = new URLSearchParams(params).toString()
    return `${BASE}/${id}/${path}${query && '?' + query}`
  }
  const call = async (method, path, { body, type, params, json } = {}) => {
    const headers = { Accept: 'application/json' }
    if (credential) headers.Authorization = `Bearer ${credential}`
    if (type) headers['Content-Type'] = type
    const answer = await fetch(url(path, params), { method, headers, body })
    if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status })
    return json ? answer.json() : answer.text()
  }
  return {
    get: (key) => call('GET', key),
    set: (key, value, options = {}) => call('PUT', key, { body: value, ...options }),
    incr: (key, by) => call('PATCH', key, { body: by > 0 ? `+${by}` : `${by}` }),
    delete: (key) => call('DELETE', key),
    list: (params) => call('GET', '', { params: { ...params, format: 'json' }, json: true }),
    token: (options) =>
      call('POST', 'tokens/', {
        type: 'application/x-www-form-urlencoded',
        body: new URLSearchParams(options).toString(),
        json: true,
      }).then((answer) => answer.access_token),
    upload: (name, source) => call('PUT', `scripts/${name}`, { type: 'text/plain', body: source }),
    run: (name, params) => call('GET', `scripts/${name}`, { params }),
    submit: (name, fields) =>
      call('POST', `scripts/${name}`, { body: new URLSearchParams(fields) }),
  }
}

const create = async (fields) => {
  const answer = await fetch(BASE, { method: 'POST', body: new URLSearchParams(fields) })
  assert.ok(answer.ok, `creating a bucket: ${answer.status}`)
  const id = await answer.text()
  assert.match(id, /^[1-9A-Za-z]{20,24}$/)
  return id
}

const refused = (status, promise) => assert.rejects(promise, (error) => error.status === status)

async function openBucket() {
  const id = await create({ email: 'user@example.com' })
  const kv = bucket(id)

  await kv.set('users:1:flavor', 'oatmeal')
  assert.equal(await kv.get('users:1:flavor'), 'oatmeal')
  await kv.set('users:1:flavor', 'oatmeal raisin')
  assert.equal(await kv.get('users:1:flavor'), 'oatmeal raisin')
  await refused(404, kv.get('users:2:flavor'))

  // What is not text comes back as it was sent.
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
  await kv.set('bytes', bytes, { type: 'application/octet-stream' })
  const back = await fetch(`${BASE}/${id}/bytes`)
  assert.deepEqual(new Uint8Array(await back.arrayBuffer()), bytes)
  await kv.delete('bytes')

  // As pages and small apps do it: JSON by POST, read by json().
  const settings = { theme: 'dark', sizes: [1, 2.5], at: Date.now() }
  await fetch(`${BASE}/${id}/settings`, { method: 'POST', body: JSON.stringify(settings) })
  assert.deepEqual(await (await fetch(`${BASE}/${id}/settings`)).json(), settings)

  assert.equal(await kv.incr('users:1:profile_views', 1), '1')
  assert.equal(await kv.incr('users:1:profile_views', 41), '42')
  assert.equal(await kv.incr('users:1:profile_views', -2), '40')
  await Promise.all(Array.from({ length: 25 }, () => kv.incr('hits', 1)))
  assert.equal(await kv.get('hits'), '25')

  assert.deepEqual(await kv.list({ prefix: 'users:1:' }), ['users:1:flavor', 'users:1:profile_views'])
  assert.deepEqual(await kv.list({ prefix: 'users:1:', values: true }), [
    ['users:1:flavor', 'oatmeal raisin'],
    ['users:1:profile_views', 40],
  ])
  assert.deepEqual(await kv.list({ skip: 1, limit: 2 }), ['settings', 'users:1:flavor'])
  assert.deepEqual(await kv.list({ reverse: true, limit: 1 }), ['users:1:profile_views'])
  assert.deepEqual(await kv.list({ prefix: 'none' }), [])
  const text = await fetch(`${BASE}/${id}/?prefix=users:1:&values=true`)
  assert.equal(await text.text(), 'users:1:flavor=oatmeal raisin\nusers:1:profile_views=40\n')

  await kv.set('later', 'gone', { params: { ttl: 3600 } })
  assert.equal(await kv.get('later'), 'gone')

  const moved = await fetch(`${BASE}/${id}`, {
    method: 'POST',
    body: JSON.stringify({ txn: [{ set: 'a', value: 'x' }, { set: 'n', value: 7, ttl: 60 }, { delete: 'later' }] }),
    headers: { 'Content-Type': 'application/json' },
  })
  assert.ok(moved.ok, `a transaction: ${moved.status}`)
  assert.equal(await kv.get('a'), 'x')
  assert.equal(await kv.get('n'), '7')
  await refused(404, kv.get('later'))

  await kv.delete('a')
  await kv.delete('a')
  await refused(404, kv.get('a'))
}

async function closedBucket() {
  const keys = { secret_key: 'owner', write_key: 'writer', read_key: 'reader', signing_key: 'signer' }
  const id = await create({ email: 'user@example.com', ...keys })
  const [owner, writer, reader, stranger] = ['owner', 'writer', 'reader', null].map((key) => bucket(id, key))

  await writer.set('user:123:name', 'kim')
  await writer.set('user:456:name', 'bob')
  assert.equal(await reader.get('user:123:name'), 'kim')
  assert.deepEqual(await owner.list(), ['user:123:name', 'user:456:name'])
  await refused(403, stranger.get('user:123:name'))
  await refused(403, reader.set('user:123:name', 'eve'))
  await refused(403, reader.list())
  await refused(401, bucket(id, 'wrong').get('user:123:name'))

  const basic = { Authorization: `Basic ${btoa('reader:')}` }
  assert.equal((await fetch(`${BASE}/${id}/user:123:name`, { headers: basic })).status, 200)
  assert.equal((await fetch(`${BASE}/${id}/user:123:name?key=reader`)).status, 200)

  const token = await owner.token({ prefix: 'user:123:', permissions: 'read,write', ttl: 3600 })
  const kim = bucket(id, token)
  assert.equal(await kim.get('user:123:name'), 'kim')
  await kim.set('user:123:name', 'kimberly')
  await refused(403, kim.get('user:456:name'))
  await refused(403, kim.set('user:456:name', 'kim'))
  await refused(403, kim.list({ prefix: 'user:123:' }))
  const query = `access_token=${encodeURIComponent(token)}`
  assert.equal(await (await fetch(`${BASE}/${id}/user:123:name?${query}`)).text(), 'kimberly')

  // The permissions of a token are the scope that a script begins with.
  await owner.upload('whoami', 'kvdb.say(kvdb.scope.prefix .. " " .. table.concat(kvdb.scope.permissions, ","))')
  assert.match(await kim.run('whoami'), /^user:123: read,write\n$/)
  await refused(403, writer.upload('whoami', 'kvdb.say("mine")'))
}

async function scripts() {
  const kv = bucket(await create({ email: 'user@example.com' }))
  await kv.upload('hello', 'kvdb.say("Hello " .. kvdb.var.name)')
  assert.equal(await kv.run('hello', { name: 'foo' }), 'Hello foo\n')
  assert.equal(await kv.submit('hello', { name: 'bar & baz' }), 'Hello bar & baz\n')
  await kv.upload('visit', `
    local key = os.date("visitors:%Y-%m-%d")
    local err = kvdb.incr(key, 1)
    if err then
      kvdb.say("error incrementing: " .. err)
      return
    end
    kvdb.say("visitors today: " .. kvdb.get(key))
  `)
  await kv.run('visit')
  assert.equal(await kv.run('visit'), 'visitors today: 2\n')
  await refused(400, kv.upload('broken', 'kvdb.say('))
  await kv.upload('forbidden', 'kvdb.set("mark", 1) kvdb.exit(403)')
  await refused(403, kv.run('forbidden'))
}

await openBucket()
await closedBucket()
await scripts()
console.log('all as expected')
