-- Creates links, each with a destination of its own, under a name that stands behind "--" on the command line, so that
-- they can be found in the table. Counts the answers that are 201, and those that are anything else.
-- The key comes from the headers of the command line.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local threads = {}
local name, n = "none", 0
created, other = 0, 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  name = args[1] or name
end

function request()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format('{"long_url":"https://example.com/%s/%d?from=bench"}', name, n))
end

function response(status)
  if status == 201 then
    created = created + 1
  else
    other = other + 1
  end
end

function done()
  local sums = { created = 0, other = 0 }
  for _, thread in ipairs(threads) do
    sums.created = sums.created + thread:get("created")
    sums.other = sums.other + thread:get("other")
  end
  io.write(string.format("Created: %d\nNot created: %d\n", sums.created, sums.other))
end
