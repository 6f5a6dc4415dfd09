// Follows the server's figures, and makes rates of its counts over the last seconds.

const WINDOW = 10 // seconds that a rate looks back
const HISTORY = 60 // rates that a node's line shows
const PATIENCE = 3000 // milliseconds without a connection until that is said
const AGAIN = 2000 // milliseconds until the next attempt where the browser makes none
export const WHOLE = "" // the name of the figures of the whole server
const COUNTS = ["calls", "errors", "batches", "items", "waited"]

// Calls back with every event: `graph(graph)`, `state(text)` and `tick(names of changed nodes)`.
export class Figures {
  constructor(url, { graph, state, tick }) {
    this.nodes = new Map()
    this.url = url
    this.listeners = { graph, state, tick }
    this.server = ""
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()))
    addEventListener("pagehide", () => this.close())
    this.open()
  }

  open() {
    if (this.source) return
    this.source = new EventSource(this.url)
    this.source.onmessage = (event) => this.read(JSON.parse(event.data))
    this.source.onopen = () => clearTimeout(this.missing)
    this.source.onerror = () => {
      clearTimeout(this.missing) // an answer may end so that another one begins
      this.missing = setTimeout(() => this.listeners.state("no connection"), PATIENCE)
      if (this.source?.readyState === EventSource.CLOSED) { // such as 401 or 503, after which no browser tries again
        this.source = null
        this.timer = setTimeout(() => this.open(), AGAIN)
      }
    }
  }

  close() {
    clearTimeout(this.timer)
    clearTimeout(this.missing)
    this.source?.close()
    this.source = null
  }

  read(event) {
    if (event.type === "graph") {
      if (JSON.stringify(event) === this.graph) return
      this.graph = JSON.stringify(event)
      this.bounds = event.bounds ?? []
      this.nodes = new Map([WHOLE, ...event.nodes.map(({ name }) => name)].map((name) => [name, new Node()]))
      this.listeners.graph(event)
      return
    }
    if (event.state) {
      this.server = event.state
      for (const node of this.nodes.values()) node.samples = [] // what was counted before may have been less
    }
    this.listeners.state(this.server)
    const now = performance.now() / 1000
    const moved = []
    for (const [name, node] of this.nodes) if (node.take(event.nodes?.[name], now)) moved.push(name)
    this.listeners.tick(moved)
  }

  // What is shown of a node: its latest figures, and rates.
  of(name) {
    return this.nodes.get(name).shown(this.bounds)
  }
}

class Node {
  constructor() {
    this.latest = {}
    this.samples = []
    this.history = []
  }

  // Adds the changed figures of one second; whether anything that is shown has changed.
  take(changed, now) {
    if (changed) Object.assign(this.latest, changed)
    const counts = Object.fromEntries(COUNTS.map((name) => [name, this.latest[name] ?? 0]))
    const last = this.samples.at(-1)
    if (last && COUNTS.some((name) => counts[name] < last.counts[name])) this.samples = [] // another process counts anew
    this.samples.push({ at: now, counts, times: this.latest.times })
    while (this.samples.length > 2 && now - this.samples[1].at >= WINDOW) this.samples.shift()
    const before = this.history.at(-1)
    const rate = this.rate("calls")
    this.history.push(rate)
    if (this.history.length > HISTORY) this.history.shift()
    return Boolean(changed) || rate !== 0 || before !== 0 || this.history.some((value) => value !== 0)
  }

  grown(name) {
    return this.samples.at(-1).counts[name] - this.samples[0].counts[name]
  }

  rate(name) {
    const seconds = this.samples.at(-1).at - this.samples[0].at
    return seconds > 0 ? this.grown(name) / seconds : 0
  }

  shown(bounds) {
    const { latest, samples, history } = this
    if (!samples.length) return { latest, history, rate: 0, errors: 0 }
    const items = this.grown("items")
    const first = samples[0].times, last = samples.at(-1).times
    const times = last && bounds.length ? last.map((count, at) => count - (first?.[at] ?? 0)) : null
    return {
      latest,
      history,
      rate: this.rate("calls"),
      errors: this.grown("errors"),
      batch: this.grown("batches") ? items / this.grown("batches") : null,
      wait: items ? this.grown("waited") / items : null,
      p50: times && quantile(times, bounds, 0.5),
      p99: times && quantile(times, bounds, 0.99),
    }
  }
}

// The value below which a share of a histogram's observations lies, interpolated within its bucket; null without any.
export function quantile(counts, bounds, share) {
  const all = counts.reduce((sum, count) => sum + count, 0)
  if (!all) return null
  let left = share * all
  for (const [at, count] of counts.entries()) {
    if (left <= count && count) {
      const low = at ? bounds[at - 1] : 0
      return at < bounds.length ? low + ((bounds[at] - low) * left) / count : low
    }
    left -= count
  }
  return bounds.at(-1)
}

export function short(number) {
  if (number === null || number === undefined) return "–"
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`
  if (number >= 1e4) return `${(number / 1e3).toFixed(0)}k`
  if (number >= 1e3) return `${(number / 1e3).toFixed(1)}k`
  return number >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toFixed(1)
}

export function seconds(value) {
  if (value === null || value === undefined) return "–"
  if (value >= 10) return `${value.toFixed(0)} s`
  if (value >= 1) return `${value.toFixed(1)} s`
  return value >= 0.0995 || value === 0 ? `${(value * 1000).toFixed(0)} ms` : `${(value * 1000).toFixed(1)} ms`
}
