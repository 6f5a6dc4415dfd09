// Shows an answer: pictures as pictures, the text of a stream as it arrives, and everything else as short JSON.

import { element } from "./element.js"
import { pictureOf } from "./pictures.js"

const LONGEST = 240 // characters of a text that is shown
const MOST = 12 // items of a list of numbers
const KEPT = 200 // documents of a stream that are shown as JSON

export class Answer {
  constructor(place) {
    this.place = place
    this.clear()
  }

  clear() {
    this.whole = null
    this.documents = []
    this.waiting = []
    this.text = null
    this.place.replaceChildren()
  }

  // An answer that has arrived as a whole.
  show(json) {
    this.whole = json
    const pictures = []
    const code = shortened(json, pictures)
    this.place.append(...figures(pictures), element("pre", {}, code))
  }

  fail(json) {
    this.whole ??= json
    const detail = json?.detail ?? json
    const said = Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.slice(1).join(".")}: ${msg}`) : [String(detail)]
    const facts = [json?.error?.type, json?.error?.id && `id ${json.error.id} in the server's log`].filter(Boolean).join(", ")
    this.place.append(...said.map((line) => element("p", { class: "bad" }, line)), element("p", { class: "about" }, facts))
  }

  // One document of a stream; drawn with the next frame, together with others.
  add(document) {
    this.documents.push(document)
    this.waiting.push(document)
    if (this.waiting.length === 1) requestAnimationFrame(() => this.draw())
  }

  draw() {
    const documents = this.waiting
    if (!documents.length) return
    this.waiting = []
    if (!this.text) {
      this.key = textOf(documents[0])
      this.text = element(this.key ? "p" : "pre", { class: "stream" })
      this.shown = element("div")
      this.place.append(this.text, this.shown)
    }
    const written = []
    for (const document of documents) {
      const pictures = []
      const code = shortened(document, pictures, true)
      this.shown.append(...figures(pictures))
      if (this.key) written.push(document[this.key] ?? "")
      else if (this.documents.length <= KEPT) written.push(`${code}\n`)
    }
    const follows = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 4
    this.text.append(written.join(""))
    if (follows) this.text.scrollTop = this.text.scrollHeight
  }

  get copy() {
    return JSON.stringify(this.whole ?? this.documents, null, 2)
  }
}

// The field whose texts make one text when they are put together; "": there is none.
function textOf(document) {
  if (typeof document !== "object" || document === null) return ""
  const texts = Object.keys(document).filter((key) => key !== "id" && typeof document[key] === "string")
  return texts.includes("text") ? "text" : texts.length === 1 ? texts[0] : ""
}

const figures = (pictures) => pictures.map(({ picture, label }) => element("figure", {}, picture, element("figcaption", {}, label)))

// JSON of a value in which what is long is cut; pictures in it are added to `pictures`.
function shortened(value, pictures, flat = false) {
  const walk = (inner, path) => {
    const picture = pictureOf(inner, path)
    if (picture) {
      pictures.push({ picture, label: path })
      return `a picture, shown above`
    }
    if (typeof inner === "string") return inner.length > LONGEST ? `${inner.slice(0, LONGEST)}… (${inner.length.toLocaleString("en")} characters)` : inner
    if (Array.isArray(inner)) {
      if (inner.length > MOST && inner.every((item) => typeof item === "number")) return [...inner.slice(0, MOST), `… ${inner.length.toLocaleString("en")} numbers`]
      return inner.map((item, at) => walk(item, `${path}[${at}]`))
    }
    if (inner && typeof inner === "object") {
      return Object.fromEntries(Object.entries(inner).map(([key, item]) => [key, walk(item, path ? `${path}.${key}` : key)]))
    }
    return inner
  }
  return JSON.stringify(walk(value, ""), null, flat ? 0 : 2)
}
