// What is known of one node, beside the graph.

import { element } from "./element.js"
import { seconds, short } from "./figures.js"

const STATES = { waiting: "waits to start again" }

export class Details {
  constructor(place) {
    this.place = place
    this.written = ""
  }

  // Writes it anew only if something that is read here has changed.
  show({ name, label, needs }, shown) {
    const { latest, rate, errors, batch, wait, p50, p99 } = shown
    const rows = [
      ["Calls per second", short(rate)],
      ["Running", short(latest.running)],
      latest.queue === undefined ? null : ["Waiting", short(latest.queue)],
      latest.batches === undefined ? null : ["Documents in a batch", batch === null ? "–" : short(batch)],
      ...(latest.times ? [["Wait, p50", seconds(p50)], ["Wait, p99", seconds(p99)]] : latest.waited === undefined ? [] : [["Wait, mean", seconds(wait)]]),
      ["Calls so far", (latest.calls ?? 0).toLocaleString("en")],
      latest.refused ? ["Refused, queue full", short(latest.refused)] : null,
      ["Errors, last 10 s", short(errors)],
      ...Object.entries(latest.failures ?? {}).map(([kind, count]) => [kind, short(count)]),
    ].filter(Boolean)
    const replicas = latest.replicas ?? []
    const content = JSON.stringify([name, label, needs, rows, replicas])
    if (content === this.written) return
    this.written = content
    this.place.replaceChildren(
      element("h3", {}, name),
      element("p", { class: "label" }, label),
      element("dl", { class: "rows" }, ...rows.flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)])),
      replicas.length ? table(replicas) : "",
    )
  }
}

function table(replicas) {
  const head = ["Replica", "Device", "Running", "Answered"].map((text) => element("th", { scope: "col" }, text))
  const row = ({ name, state, device, in_flight, answered, restarts, failure }) => {
    const said = [STATES[state] ?? state, restarts ? `restarted ${restarts}×` : "", failure ? failure.type : ""]
    return element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        element("span", { class: `dot ${state}`, "aria-hidden": "true" }),
        name.split("/").at(-1),
        element("small", {}, said.filter(Boolean).join(", ")),
      ),
      element("td", {}, device || "–"),
      element("td", {}, short(in_flight)),
      element("td", {}, short(answered)),
    )
  }
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...replicas.map(row)))
}
