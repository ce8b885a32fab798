-- Bodies for bench/intake.py: `samples` or webhook `deliveries` for the agent, `alerts` for Alertmanager.
-- Arguments: kind, entries in a body, number of the round, most requests, samples of ten thousand that
-- report a crash loop. No two entries of a run are alike.
local kind, entries, round, most, breaching
local sent, answered = 0, 0
local SERVICES = 1000

function init(args)
  kind, entries, round, most = args[1], tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  breaching = tonumber(args[5])
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  started = os.time() - 600
end

local function moment(n)
  return os.date("!%Y-%m-%dT%H:%M:%S", started + math.floor(n / 1000000)) .. string.format(".%06dZ", n % 1000000)
end

local function breaches(n)
  return breaching > 0 and n % math.floor(10000 / breaching) == 0
end

local function sample(n)
  return string.format(
    '{"service":"service-%d","environment":"prod","error_rate":0.01,"p95_latency_ms":%d,%s"timestamp":"%s"}',
    n % SERVICES, 100 + n % 50, breaches(n) and '"crash_looping":true,' or '', moment(n))
end

local function delivered(n)
  return string.format(
    '{"status":"firing","labels":{"alertname":"HighLatency","service":"service-%d","environment":"prod"},' ..
    '"annotations":{"summary":"p95 is %d ms"},"startsAt":"%s","endsAt":"0001-01-01T00:00:00Z",' ..
    '"fingerprint":"%08x%08x"}', n % SERVICES, 100 + n % 50, moment(n), round + 1, n)
end

local function alert(n)
  return string.format(
    '{"labels":{"alertname":"HighLatency","service":"service-%d","environment":"prod","round":"%d"},' ..
    '"annotations":{"summary":"p95 is %d ms"},"startsAt":"%s"}',
    n % SERVICES, round, 100 + n % 50, moment(n))
end

function request()
  local one = kind == "samples" and sample or kind == "deliveries" and delivered or alert
  local list = {}
  for _ = 1, entries do
    sent = sent + 1
    list[#list + 1] = one(sent)
  end
  local body = table.concat(list, ",")
  if kind == "deliveries" then
    body = '{"version":"4","status":"firing","receiver":"agent","alerts":[' .. body .. ']}'
  elseif entries > 1 or kind == "alerts" then body = "[" .. body .. "]"
  end
  return wrk.format(nil, nil, nil, body)
end

function response()
  answered = answered + 1
  if answered >= most then wrk.thread:stop() end
end
