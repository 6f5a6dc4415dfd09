// Fields made from a JSON Schema. A field has a `node`, and `read()`, which returns its value; undefined: left out.

import { element, freshId } from "./element.js"
import { contentOf, tensorOf } from "./pictures.js"

const reading = new Set() // files that are being read

// Resolves when every chosen file has been read.
export const settled = () => Promise.all(reading)

function tracked(work) {
  reading.add(work)
  return work.finally(() => reading.delete(work))
}

const DEEPEST = 4 // documents within documents, before a field is JSON

// `find` returns the schema that a reference names.
export class Fields {
  constructor(find) {
    this.find = find
  }

  // The schema itself: references followed, and one that allows null beside one other taken as that, which may be left out.
  plain(schema) {
    let found = schema
    while (found.$ref || found.anyOf || found.allOf?.length === 1) {
      const { $ref, anyOf, allOf, ...around } = found
      if ($ref) found = { ...this.find($ref), ...around }
      else if (allOf) found = { ...allOf[0], ...around }
      else {
        const others = anyOf.filter((one) => one.type !== "null")
        if (others.length !== 1) return { ...around, several: others }
        found = { ...others[0], ...around, nullable: others.length < anyOf.length }
      }
    }
    return found
  }

  // The field of a value called `name`.
  of(given, name, { required = false, depth = 0 } = {}) {
    const schema = this.plain(given)
    const facts = { name, required, depth, schema }
    if (schema.several) return json(facts)
    if ("const" in schema) return { node: element("div", { hidden: true }), read: () => schema.const }
    if (schema.enum) return choice(facts)
    if ("tensor/array shape" in schema) return tensor(facts)
    switch (schema.type) {
      case "boolean":
        return schema.nullable ? choice({ ...facts, schema: { ...schema, enum: [true, false] } }) : tick(facts)
      case "integer":
      case "number":
        return number(facts)
      case "string":
        return schema.format === "binary" ? file(facts) : text(facts)
      case "array":
        return schema.items ? this.list(facts) : json(facts)
      case "object":
        return schema.properties && depth < DEEPEST ? this.document(facts) : json(facts)
      default:
        return json(facts)
    }
  }

  // A document's fields: those that need no thought about them lie in a fold.
  document({ name, required, depth, schema }) {
    const needed = new Set(schema.required ?? [])
    const fields = Object.entries(schema.properties).map(([key, inner]) => {
      const field = this.of(inner, key, { required: needed.has(key), depth: depth + 1 })
      return { key, ...field, spare: !needed.has(key) && (key === "id" || this.plain(inner).nullable) }
    })
    const shown = fields.filter((field) => !field.spare).map((field) => field.node)
    const spare = fields.filter((field) => field.spare).map((field) => field.node)
    const fold = spare.length
      ? element("details", { open: !shown.length }, element("summary", {}, `${spare.length} more, optional`), ...spare)
      : null
    const node = element("fieldset", {}, element("legend", {}, name), ...described(schema), ...shown, fold)
    const read = () => {
      const found = Object.fromEntries(fields.map(({ key, read }) => [key, read()]).filter(([, value]) => value !== undefined))
      return Object.keys(found).length || required ? found : undefined
    }
    return { node, read }
  }

  // As many fields as the reader adds.
  list({ name, required, depth, schema, least = 0, noun = "item" }) {
    const items = []
    const place = element("div", { class: "items" })
    const add = element("button", { type: "button", class: "quiet" }, `Add ${noun === "item" ? "to" : "a"} ${noun === "item" ? name : noun}`)
    const number = () => {
      for (const [at, item] of items.entries()) item.remove.setAttribute("aria-label", `Remove ${noun} ${at + 1} of ${name}`)
      for (const item of items) item.remove.hidden = items.length <= least
    }
    const append = () => {
      const field = this.of(schema.items, noun === "item" ? name : noun, { required: true, depth: depth + 1 })
      const remove = element("button", { type: "button", class: "quiet remove" }, "Remove")
      const item = { ...field, remove, row: element("div", { class: "item" }, field.node, remove) }
      remove.addEventListener("click", () => {
        items.splice(items.indexOf(item), 1)
        item.row.remove()
        number()
        add.focus()
        place.dispatchEvent(new Event("input", { bubbles: true }))
      })
      items.push(item)
      place.append(item.row)
      number()
      return item
    }
    for (let at = 0; at < least; at += 1) append()
    add.addEventListener("click", () => {
      append().row.querySelector("input, textarea, select")?.focus()
      place.dispatchEvent(new Event("input", { bubbles: true }))
    })
    const node = element("fieldset", { class: "list" }, element("legend", {}, name), ...described(schema), place, add)
    return { node, read: () => (items.length || required ? items.map((item) => item.read()) : undefined) }
  }
}

const described = ({ description }) =>
  description ? [element("p", { class: "about" }, description.split("\n\n")[0])] : []

// A labelled control.
function labelled({ name, required, schema }, control, hint, ...more) {
  const id = (control.id ||= freshId("field")), about = `${id}-about`
  if (required) control.required = control.type !== "checkbox"
  const said = [hint, required ? "required" : ""].filter(Boolean).join(", ")
  const description = schema.description ? element("p", { class: "about", id: about }, schema.description.split("\n\n")[0]) : null
  if (description) control.setAttribute("aria-describedby", about)
  return element(
    "div",
    { class: control.type === "checkbox" ? "field tick" : "field" },
    element("label", { for: id }, name, said ? element("small", {}, said) : null),
    control,
    ...more,
    description,
  )
}

function text(facts) {
  const { schema } = facts
  const long = !schema.format
  const control = element(long ? "textarea" : "input", {
    rows: long ? 1 : null,
    minlength: schema.minLength ?? null,
    maxlength: schema.maxLength ?? null,
    placeholder: schema.examples?.[0] ?? schema.example ?? null,
    spellcheck: "false",
  })
  control.value = typeof schema.default === "string" ? schema.default : ""
  const hint = schema.format ?? ""
  const read = () => (control.value === "" && !facts.required ? undefined : control.value)
  const node = labelled(facts, control, hint)
  control.required = false // an empty text is a text
  return { node, read }
}

function number(facts) {
  const { schema } = facts
  const whole = schema.type === "integer"
  const low = schema.minimum ?? schema.exclusiveMinimum, high = schema.maximum ?? schema.exclusiveMaximum
  const control = element("input", { type: "number", step: whole ? 1 : "any", min: low ?? null, max: high ?? null })
  control.value = schema.default ?? ""
  const range = low !== undefined && high !== undefined ? `${low} to ${high}` : low !== undefined ? `from ${low}` : high !== undefined ? `to ${high}` : ""
  const node = labelled(facts, control, [whole ? "whole number" : "number", range].filter(Boolean).join(", "))
  return { node, read: () => (control.value === "" ? undefined : Number(control.value)) }
}

function tick(facts) {
  const control = element("input", { type: "checkbox" })
  control.checked = facts.schema.default === true
  return { node: labelled({ ...facts, required: false }, control, ""), read: () => control.checked }
}

function choice(facts) {
  const { schema, required } = facts
  const values = schema.enum
  const control = element("select", {}, ...(required ? [] : [element("option", { value: "" }, "–")]))
  for (const [at, value] of values.entries()) control.append(element("option", { value: at }, String(value)))
  const chosen = values.indexOf(schema.default)
  control.value = chosen >= 0 ? chosen : required ? 0 : ""
  return { node: labelled(facts, control, ""), read: () => (control.value === "" ? undefined : values[control.value]) }
}

// Any other value, written as JSON.
function json(facts) {
  const { schema, required } = facts
  const control = element("textarea", { rows: 1, spellcheck: "false", class: "code" })
  const plain = schema.default === undefined || schema.default === null || JSON.stringify(schema.default).length < 3
  control.value = plain ? "" : JSON.stringify(schema.default)
  const read = () => {
    control.setCustomValidity("")
    if (!control.value.trim()) return undefined
    try {
      return JSON.parse(control.value)
    } catch (error) {
      control.setCustomValidity(`This is no JSON: ${error.message}`)
      return required ? null : undefined
    }
  }
  control.addEventListener("input", read)
  return { node: labelled(facts, control, "JSON"), read }
}

function file(facts) {
  const control = element("input", { type: "file" })
  const preview = element("div", { class: "preview" })
  let content
  control.addEventListener("change", async () => {
    content = undefined
    const [chosen] = control.files
    shown(preview, chosen)
    if (chosen) content = await tracked(contentOf(chosen))
    control.dispatchEvent(new Event("input", { bubbles: true }))
  })
  return { node: labelled(facts, control, "file", preview), read: () => content }
}

function tensor(facts) {
  const { schema } = facts
  const declared = schema["tensor/array shape"].match(/\d+/g)?.map(Number) ?? []
  const field = json({ ...facts, schema: { ...schema, default: undefined } })
  const control = element("input", { type: "file", accept: "image/*", "aria-label": `${facts.name}, from a picture` })
  const preview = element("div", { class: "preview" })
  const written = field.node.querySelector("textarea")
  const small = field.node.querySelector("small")
  small.textContent = small.textContent.replace("JSON", declared.length ? `numbers, ${declared.join(" × ")}` : "numbers")
  written.placeholder = "[0.5, 1, …], or a picture"
  const needed = written.required
  let pixels
  control.addEventListener("change", async () => {
    pixels = undefined
    const [chosen] = control.files
    shown(preview, chosen)
    if (chosen) {
      try {
        pixels = await tracked(tensorOf(chosen, declared))
        control.setCustomValidity("")
      } catch {
        control.setCustomValidity("This file is no picture that the browser can read.")
      }
    }
    written.required = needed && !pixels
    control.dispatchEvent(new Event("input", { bubbles: true }))
  })
  field.node.append(control, preview)
  return { node: field.node, read: () => pixels ?? field.read() }
}

// A picture of the chosen file, or its size.
function shown(preview, chosen) {
  preview.replaceChildren()
  if (!chosen) return
  if (!chosen.type.startsWith("image/")) {
    preview.append(`${chosen.size.toLocaleString("en")} bytes`)
    return
  }
  const url = URL.createObjectURL(chosen)
  const picture = element("img", { src: url, alt: `${chosen.name}, the chosen file` })
  for (const event of ["load", "error"]) picture.addEventListener(event, () => URL.revokeObjectURL(url))
  preview.append(picture)
}
