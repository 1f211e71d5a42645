-- Creates links, each with a destination of its own; the key comes from the headers of the command line.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local n = 0
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format('{"long_url":"https://example.com/articles/%d?from=bench"}', n))
end
