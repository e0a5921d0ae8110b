-- For wrk: posts one binary request again and again, and prints what came of it as JSON.
--
--   wrk -t1 -c8 -d10s -s infer.lua http://127.0.0.1:8000/v2/models/NAME/infer -- body.bin LENGTH
--
-- body.bin is a KServe v2 request with binary tensor data, LENGTH that of its JSON.

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Inference-Header-Content-Length"] = arguments[2]
  file:close()
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %g, "p50_ms": %g, "p99_ms": %g, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
