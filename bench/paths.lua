-- Asks for codes from a file, each in a line of eight bytes, from a given line on; at the end of the file from its
-- beginning. What stands behind "--" on the command line: the file, the line, how many lines.
local requests, number, count = {}, 0, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  file:seek("set", tonumber(args[2]) * 8)
  local made = {}
  for _ = 1, tonumber(args[3]) do
    local line = file:read(8)
    if not line or #line < 8 then
      file:seek("set", 0)
      line = file:read(8)
    end
    local code = line:sub(1, 7)
    made[code] = made[code] or wrk.format("GET", "/" .. code)
    count = count + 1
    requests[count] = made[code]
  end
  file:close()
end

function request()
  number = number % count + 1
  return requests[number]
end
