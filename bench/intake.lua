-- Bodies for bench/intake.py: `samples` of healthy services for the agent, `alerts` for Alertmanager.
-- Arguments: kind, entries in a body, number of the round, most requests. No two entries of a run are alike.
local kind, entries, round, most
local sent, answered = 0, 0
local SERVICES = 1000

function init(args)
  kind, entries, round, most = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  started = os.time() - 600
end

local function moment(n)
  return os.date("!%Y-%m-%dT%H:%M:%S", started + math.floor(n / 1000000)) .. string.format(".%06dZ", n % 1000000)
end

local function sample(n)
  return string.format(
    '{"service":"service-%d","environment":"prod","error_rate":0.01,"p95_latency_ms":%d,"timestamp":"%s"}',
    n % SERVICES, 100 + n % 50, moment(n))
end

local function alert(n)
  return string.format(
    '{"labels":{"alertname":"HighLatency","service":"service-%d","environment":"prod","round":"%d"},' ..
    '"annotations":{"summary":"p95 is %d ms"},"startsAt":"%s"}',
    n % SERVICES, round, 100 + n % 50, moment(n))
end

function request()
  local one = kind == "samples" and sample or alert
  local list = {}
  for _ = 1, entries do
    sent = sent + 1
    list[#list + 1] = one(sent)
  end
  local body = table.concat(list, ",")
  if entries > 1 or kind == "alerts" then body = "[" .. body .. "]" end
  return wrk.format(nil, nil, nil, body)
end

function response()
  answered = answered + 1
  if answered >= most then wrk.thread:stop() end
end
