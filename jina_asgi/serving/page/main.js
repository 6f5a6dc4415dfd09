// Puts the page together: live figures above, a call below.

import { Answer } from "./answer.js"
import { call } from "./call.js"
import { Details } from "./details.js"
import { copier, element, mark, write } from "./element.js"
import { Figures, WHOLE, seconds, short } from "./figures.js"
import { Fields, settled } from "./form.js"
import { Graph } from "./graph.js"
import { SAMPLES } from "./samples.js"

const BASE = new URL("..", location.href) // the prefix of the application
const AGAIN = 2000 // milliseconds
const SHOWN = 1500 // characters of a sample; all of it is copied
const at = (id) => document.getElementById(id)

// --- the graph and its figures

const nodes = new Map()
const details = new Details(at("details"))
const graph = new Graph(at("graph"), (name) => figures.nodes.size && details.show(nodes.get(name), figures.of(name)))
const summary = ["calls per second", "running", "errors, last 10 s", "time p50", "time p99"].map((term) => {
  const value = element("dd", {}, "–")
  at("summary").append(element("div", {}, element("dt", {}, term), value))
  return value
})
const figures = new Figures(new URL("figures", location.href), {
  graph(shown) {
    nodes.clear()
    for (const node of shown.nodes) nodes.set(node.name, node)
    graph.show(shown)
  },
  state(text) {
    write(at("state"), text)
    mark(at("state"), "class", text)
  },
  tick(moved) {
    for (const name of moved) if (name !== WHOLE) graph.update(name, figures.of(name))
    if (nodes.has(graph.selected)) details.show(nodes.get(graph.selected), figures.of(graph.selected))
    summarise()
  },
})
// The whole server.
function summarise() {
  const { rate, latest, errors, p50, p99 } = figures.of(WHOLE)
  const texts = [short(rate), short(latest.running), short(errors), seconds(p50), seconds(p99)]
  for (const [index, text] of texts.entries()) write(summary[index], text)
  mark(summary[2], "class", errors ? "bad" : "")
}

at("smaller").addEventListener("click", () => graph.resize(1 / 1.25))
at("larger").addEventListener("click", () => graph.resize(1.25))
at("fit").addEventListener("click", () => graph.fit())

// --- the call

const answer = new Answer(at("answer"))
copier(at("copy-answer"), () => answer.copy)
let running = null // the AbortController of the call that runs

async function endpoints() {
  const found = await fetch(new URL("openapi.json", BASE))
  if (!found.ok) throw new Error(String(found.status))
  return found.json()
}

async function begin() {
  let api
  try {
    api = await endpoints()
  } catch { // still loading, or no connection
    setTimeout(begin, AGAIN)
    return
  }
  document.title = api.info.title
  write(at("title"), api.info.title)
  compose(api)
}

function compose(api) {
  const find = (reference) => api.components.schemas[reference.split("/").pop()]
  const fields = new Fields(find)
  const form = at("form")
  const paths = Object.keys(api.paths)
  const choose = element("select", { id: "endpoint" }, ...paths.map((path) => element("option", {}, path)))
  const about = element("p", { class: "about" })
  const place = element("div")
  const send = element("button", { type: "submit", class: "main" }, "Send")
  const stop = element("button", { type: "button", disabled: true }, "Stop")
  const written = element("textarea", { id: "body", class: "code", rows: 12, spellcheck: "false" })
  const byHand = element("input", { type: "checkbox", id: "by-hand" })
  let made = null

  const body = () => (byHand.checked ? JSON.parse(written.value) : made.read())
  const current = () => ({ url: new URL(choose.value.slice(1), BASE).href, streams: "get" in api.paths[choose.value] })

  const rebuild = () => {
    const operation = api.paths[choose.value].post
    write(about, operation.description || "")
    about.hidden = !operation.description
    made = bodyFields(fields, find(operation.requestBody.content["application/json"].schema.$ref))
    byHand.checked = false
    place.replaceChildren(made.node)
    sample()
  }
  const sample = samples(at("samples"), () => ({ ...current(), body: body() }))
  choose.addEventListener("change", rebuild)
  byHand.addEventListener("change", () => {
    if (byHand.checked) written.value = JSON.stringify(made.read(), null, 2)
    place.replaceChildren(byHand.checked ? element("div", { class: "field" }, element("label", { for: "body" }, "body"), written) : made.node)
  })
  stop.addEventListener("click", () => running?.abort())
  form.addEventListener("input", () => {
    written.setCustomValidity(byHand.checked ? noJson(written.value) : "")
    sample()
  })
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit()
  })
  document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort())
  form.addEventListener("submit", async (event) => {
    event.preventDefault()
    if (!stop.disabled) return
    stop.disabled = false
    mark(send, "aria-disabled", "true")
    try {
      await settled()
      await ask({ ...current(), body: JSON.stringify(body()) })
    } finally {
      if (document.activeElement === stop) send.focus()
      stop.disabled = true
      mark(send, "aria-disabled", "false")
    }
  })
  form.replaceChildren(
    element("div", { class: "field" }, element("label", { for: "endpoint" }, "Endpoint"), choose, about),
    place,
    element("div", { class: "buttons" }, send, stop, element("label", { class: "by-hand" }, byHand, "as JSON")),
  )
  rebuild()
}

// The fields of a request's body: its documents, and its parameters.
function bodyFields(fields, schema) {
  const { data, parameters } = schema.properties
  const several = data.anyOf
  const docs = several
    ? fields.list({ name: "Documents", required: true, depth: 0, schema: several[0], least: 1, noun: "document" })
    : fields.of(data, "Document", { required: true })
  const named = fields.of(parameters, "Parameters", { required: schema.required.includes("parameters") })
  docs.node.classList.add("top")
  named.node.classList.add("top")
  const read = () => {
    const given = named.read()
    return { data: docs.read(), ...(given === undefined ? {} : { parameters: given }) }
  }
  return { node: element("div", {}, docs.node, named.node), read }
}

function noJson(text) {
  try {
    JSON.parse(text)
    return ""
  } catch (error) {
    return `This is no JSON: ${error.message}`
  }
}

// Makes the call, and shows its answer and its timings as they come.
async function ask(asked) {
  const outcome = at("outcome"), region = at("answer")
  answer.clear()
  at("copy-answer").hidden = true
  mark(region, "aria-busy", "true")
  write(outcome, "waiting")
  mark(outcome, "class", "")
  running = new AbortController()
  const times = { documents: 0 }
  try {
    const result = await call({
      ...asked,
      signal: running.signal,
      began: (time) => timings(Object.assign(times, { began: time })),
      document(document, time) {
        times.first ??= time
        times.documents += 1
        times.total = time
        answer.add(document)
        write(outcome, "arriving")
        timings(times)
      },
    })
    answer.draw()
    const good = result.status < 400 && !result.failed
    timings(Object.assign(times, { total: result.seconds, size: result.size }))
    write(outcome, good ? "done" : `${result.failed ? "failed" : result.status}`)
    mark(outcome, "class", good ? "" : "bad")
    if (!good) answer.fail(result.json)
    else if (result.json !== null) answer.show(result.json)
  } catch (error) {
    answer.draw()
    write(outcome, running.signal.aborted ? "stopped" : "no connection")
    mark(outcome, "class", running.signal.aborted ? "" : "bad")
  } finally {
    running = null
    mark(region, "aria-busy", "false")
    at("copy-answer").hidden = answer.whole === null && !answer.documents.length
  }
}

function timings({ began, first, total, documents, size }) {
  const rows = [
    ["first byte", began],
    ["first document", first],
    ["total", total],
  ].filter(([, value]) => value !== undefined).map(([term, value]) => [term, seconds(value)])
  if (documents) rows.push(["documents", short(documents)])
  if (documents > 1 && total > first) rows.push(["per second", short((documents - 1) / (total - first))])
  if (size !== undefined) rows.push(["size", size < 1e4 ? `${size} B` : `${short(size / 1e3)} kB`])
  at("timings").replaceChildren(
    ...rows.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))),
  )
}

// The call as code; returns a function that writes it anew.
function samples(place, asked) {
  const code = element("pre", { tabindex: "0" }, "")
  const buttons = Object.keys(SAMPLES).map((name) => element("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => choose(name) }, name))
  const copy = copier(element("button", { type: "button", class: "quiet" }, "Copy"), () => text)
  let chosen = "curl", text = ""
  const refresh = () => {
    try {
      text = SAMPLES[chosen](asked())
    } catch {
      return // the body is no JSON yet
    }
    write(code, text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text)
  }
  const choose = (name) => {
    chosen = name
    for (const button of buttons) mark(button, "aria-pressed", String(button.textContent === name))
    refresh()
  }
  place.replaceChildren(element("div", { class: "bar" }, element("h3", {}, "As code"), element("div", { class: "tabs", role: "group", "aria-label": "Language" }, ...buttons), copy), code)
  choose(chosen)
  return refresh
}

begin()
