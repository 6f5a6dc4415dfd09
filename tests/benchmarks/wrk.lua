-- Sends the file $BODY; prints one line of JSON at the end.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = os.getenv("METHOD")
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = os.getenv("TYPE")
function done(summary, latency, _)
  local e = summary.errors
  print(string.format('FIGURES {"requests": %d, "us": %d, "errors": %d, "p50": %f, "p99": %f}',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
