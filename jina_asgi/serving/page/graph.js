// Draws the graph, and writes each node's figures into it: nothing is drawn anew while figures move.

import { drawn, mark, write } from "./element.js"
import { seconds, short } from "./figures.js"
import { HEIGHT, WIDTH, placed } from "./layout.js"

const FIRST = "gateway", LAST = "\nanswer" // which no node can be named
const PAD = 20
const COLUMNS = [16, 66, 122, WIDTH - 16]
const LINE = { top: 96, height: 14, left: 16, width: WIDTH - 32 }
const SMALLEST = 0.55 // below which a graph is not shrunk to fit

export class Graph {
  constructor(place, choose) {
    this.place = place
    this.choose = choose
    this.cards = new Map()
    this.zoom = 1
    place.addEventListener("keydown", (event) => this.key(event))
    new ResizeObserver(() => this.fitted && this.fit()).observe(place)
  }

  show({ name, nodes, end }) {
    this.layout = placed(nodes, { first: FIRST, last: LAST, end })
    const { places, edges, width, height } = this.layout
    this.size = { width: width + 2 * PAD, height: height + 2 * PAD }
    this.svg = drawn("svg", {
      viewBox: `${-PAD} ${-PAD} ${this.size.width} ${this.size.height}`,
      role: "group",
      "aria-label": `${name}: ${nodes.length} ${nodes.length === 1 ? "node" : "nodes"}`,
      "aria-describedby": "graph-hint",
    })
    this.edges = edges.map((edge) => {
      const path = drawn("path", { d: curve(edge.points), class: edge.dotted ? "edge dotted" : "edge" })
      this.svg.append(path)
      return { ...edge, path }
    })
    for (const [key, text] of [[FIRST, "request"], [LAST, "answer"]]) this.svg.append(pill(places.get(key), text))
    this.cards = new Map(nodes.map((node) => [node.name, new Card(node, places.get(node.name))]))
    for (const [key, card] of this.cards) {
      card.group.addEventListener("click", () => this.select(key))
      card.group.addEventListener("focus", () => this.select(key))
      this.svg.append(card.group)
    }
    this.place.replaceChildren(this.svg)
    this.fit()
    const start = places.get(FIRST)
    this.place.scrollTo(0, (start.y + start.height / 2 + PAD) * this.zoom - this.place.clientHeight / 2)
    const kept = this.cards.has(this.selected) ? this.selected : nodes[0]?.name
    this.selected = null
    if (kept) this.select(kept)
  }

  // Writes the figures of one node.
  update(name, shown) {
    this.cards.get(name).update(shown)
    for (const edge of this.edges) if (edge.to === name) mark(edge.path, "data-busy", String(shown.rate > 0))
  }

  select(name) {
    if (name === this.selected) return
    for (const [key, card] of this.cards) {
      mark(card.group, "tabindex", key === name ? "0" : "-1")
      mark(card.group, "aria-pressed", String(key === name))
    }
    this.selected = name
    this.choose(name)
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    const within = event.target.closest?.("[data-node]")
    if (!step || !within || event.altKey || event.ctrlKey || event.metaKey) return
    event.preventDefault()
    const next = this.beside(this.selected, ...step)
    if (next) this.cards.get(next).group.focus()
  }

  // The nearest node in the next layer, or the next in the same one.
  beside(name, across, down) {
    const { layers, places } = this.layout
    const real = layers.map((layer) => layer.filter((key) => this.cards.has(key))).filter((layer) => layer.length)
    const at = real.findIndex((layer) => layer.includes(name))
    if (down) return real[at][real[at].indexOf(name) + down]
    const y = places.get(name).y
    const away = (key) => Math.abs(places.get(key).y - y)
    return [...(real[at + across] ?? [])].sort((one, other) => away(one) - away(other))[0]
  }

  fit() {
    this.fitted = true
    const room = this.place.clientWidth - 2
    this.scale(Math.min(1, Math.max(SMALLEST, room / this.size.width)))
  }

  resize(factor) {
    this.fitted = false
    this.scale(Math.min(2, Math.max(0.15, this.zoom * factor)))
  }

  scale(zoom) {
    if (!this.svg) return
    this.zoom = zoom
    this.svg.setAttribute("width", Math.round(this.size.width * zoom))
    this.svg.setAttribute("height", Math.round(this.size.height * zoom))
  }
}

// One node: the texts that change, kept.
class Card {
  constructor({ name, label }, { x, y }) {
    const figure = (at, caption) => {
      const place = { x: COLUMNS[at], "text-anchor": at === COLUMNS.length - 1 ? "end" : null }
      const value = drawn("text", { ...place, y: 70, class: "value" }, "–")
      return { value, caption: drawn("text", { ...place, y: 85, class: "caption" }, caption) }
    }
    this.figures = { rate: figure(0, "per s"), queue: figure(1, "queue"), wait: figure(2, "wait"), errors: figure(3, "errors") }
    this.line = drawn("path", { class: "line", d: "" })
    this.dots = drawn("g", { class: "dots" })
    this.group = drawn(
      "g",
      { transform: `translate(${x} ${y})`, class: "node", role: "button", tabindex: -1, "aria-label": `${name}, ${label}`, "data-node": name },
      drawn("title", {}, `${name}: ${label}`),
      drawn("rect", { width: WIDTH, height: HEIGHT, rx: 12 }),
      drawn("text", { x: 16, y: 27, class: "name" }, cut(name, 20)),
      drawn("text", { x: 16, y: 44, class: "label" }, cut(label, 28)),
      ...Object.values(this.figures).flatMap(({ value, caption }) => [value, caption]),
      this.line,
      this.dots,
    )
  }

  update({ latest, rate, errors, wait, p50, history }) {
    write(this.figures.rate.value, short(rate))
    write(this.figures.queue.value, short(latest.queue ?? latest.running))
    write(this.figures.queue.caption, latest.queue === undefined ? "running" : "queue")
    write(this.figures.wait.value, seconds(p50 ?? wait))
    write(this.figures.errors.value, short(errors))
    mark(this.figures.errors.value, "class", errors ? "value bad" : "value")
    mark(this.line, "d", line(history))
    const states = (latest.replicas ?? []).map((replica) => replica.state)
    if (states.join() === this.states) return
    this.states = states.join()
    const shown = states.slice(0, 8)
    this.dots.replaceChildren(
      ...shown.map((state, at) => drawn("circle", { cx: WIDTH - 18 - 12 * (shown.length - 1 - at), cy: 22, r: 4, class: state })),
    )
  }
}

function pill({ x, y, width, height }, text) {
  return drawn(
    "g",
    { transform: `translate(${x} ${y})`, class: "pill", "aria-hidden": "true" },
    drawn("rect", { width, height, rx: height / 2 }),
    drawn("text", { x: width / 2, y: height / 2 + 4, "text-anchor": "middle" }, text),
  )
}

function curve([start, ...rest]) {
  let path = `M${start.x} ${start.y}`, before = start
  for (const point of rest) {
    const reach = (point.x - before.x) / 2
    path += `C${before.x + reach} ${before.y} ${point.x - reach} ${point.y} ${point.x} ${point.y}`
    before = point
  }
  return path
}

// The rates of the last minute; the newest is at the right.
function line(history) {
  const most = Math.max(...history)
  if (!most) return ""
  const step = LINE.width / 59
  return history
    .map((rate, at) => {
      const x = LINE.left + LINE.width - (history.length - 1 - at) * step
      return `${at ? "L" : "M"}${x.toFixed(1)} ${(LINE.top + LINE.height * (1 - rate / most)).toFixed(1)}`
    })
    .join("")
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text)
