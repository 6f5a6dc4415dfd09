// Makes one call and reads its answer, as a whole or event by event.

// Returns {status, json, seconds}; of a stream `json` is null, and each document goes to `document`. Times are in seconds.
export async function call({ url, body, streams, signal, document, began = () => {} }) {
  const start = performance.now()
  const since = () => (performance.now() - start) / 1000
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: streams ? "text/event-stream" : "application/json" },
    body,
    signal,
  })
  began(since())
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
    const text = await answer.text()
    return { status: answer.status, json: parsed(text), size: text.length, seconds: since() }
  }
  let size = 0
  for await (const { event, data } of events(answer.body, (bytes) => { size += bytes })) {
    if (event === "update") document(parsed(data), since())
    if (event === "error") return { status: answer.status, json: parsed(data), failed: true, size, seconds: since() }
  }
  return { status: answer.status, json: null, size, seconds: since() }
}

async function* events(body, count) {
  const decoder = new TextDecoder()
  const reader = body.getReader()
  let left = ""
  while (true) {
    const { value, done } = await reader.read()
    if (done) return
    count(value.length)
    const blocks = (left + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/)
    left = blocks.pop()
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split(/\r?\n/).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()]))
      if (fields.event) yield fields
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text // such as a proxy's own page
  }
}
