-- wrk ... -- METHOD PATHS [BODY CONTENT-TYPE]: each request takes a random line of the file PATHS as its path.
-- The results come as one line that begins with "figures".

local paths, body, headers = {}, nil, {}

function init(arguments)
  method = arguments[1]
  for path in io.lines(arguments[2]) do paths[#paths + 1] = path end
  if arguments[3] then
    local file = io.open(arguments[3], "rb")
    body = file:read("*a")
    file:close()
    headers["Content-Type"] = arguments[4]
  end
  math.randomseed(1)
end

function request()
  return wrk.format(method, paths[math.random(#paths)], headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
