-- One node that syncs each write, its accounts, and the transfer as a stored procedure.
-- usage: tarantool tarantool.lua ADDRESS DIRECTORY ACCOUNTS BALANCE
local address, directory, accounts, balance = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local fiber = require('fiber')

function transfer(from, to, amount)
  local space = box.space.accounts
  box.begin()
  local have, there = space:get(from), space:get(to)
  if have == nil or there == nil or have[2] < amount then
    box.rollback()
    return 0
  end
  space:replace{from, have[2] - amount}
  space:replace{to, there[2] + amount}
  box.commit()
  return 1
end

box.cfg{work_dir = directory, wal_mode = 'fsync', log_level = 3, net_msg_max = 4096, readahead = 1024 * 1024}
box.schema.user.grant('guest', 'super')
local space = box.schema.space.create('accounts')
space:create_index('pk', {parts = {1, 'string'}})
local done = fiber.channel(64)
for first = 0, 63 do
  fiber.create(function()
    for number = first, accounts - 1, 64 do
      space:replace{string.format('a%015d', number), balance}
    end
    done:put(true)
  end)
end
for _ = 0, 63 do
  done:get()
end
-- Whoever can connect finds it ready.
box.cfg{listen = address}
