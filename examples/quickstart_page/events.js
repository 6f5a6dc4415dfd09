// Server-sent events from a streamed response. EventSource cannot: it only sends GET, without a body.

/** Yields {name, data} for each event, data parsed as JSON (null where there is none). */
export async function* events(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r\n\r\n|\n\n/);
      rest = parts.pop();
      for (const part of parts) {
        const event = parse(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // an aborted stream is cancelled already, and says so
  }
}

/** One event's lines; null for a comment, which only keeps the connection alive. */
function parse(part) {
  let name = null;
  const data = [];
  for (const line of part.split(/\r\n|\n/)) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return name || data.length ? { name: name ?? "message", data: data.length ? JSON.parse(data.join("\n")) : null } : null;
}
