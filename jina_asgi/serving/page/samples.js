// The same call as code. Pure: a call in, text out. A file is read by the code; `name` says where it lies.

import { Content } from "./pictures.js"

const HOLE = (at) => `\u0000${at}\u0000` // stands for a file's content until its code is put there

export const SAMPLES = { curl, Python: python, JavaScript: javascript }

// The files of a body, and the body with holes in their places.
function holed(body) {
  const files = []
  const walk = (value) => {
    if (value instanceof Content) return HOLE(files.push(value) - 1)
    if (Array.isArray(value)) return value.map(walk)
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, walk(item)]))
    return value
  }
  return { files, value: walk(body) }
}

const filled = (text, files, code) => text.replace(/"(?:\\u0000|\u0000)(\d+)(?:\\u0000|\u0000)"/g, (_, at) => code(files[at].name))

function curl({ url, body, streams }) {
  const { files, value } = holed(body)
  const quoted = JSON.stringify(value).replaceAll("'", "'\\''")
  const shell = (name) => `"'"$(base64 -w0 '${name.replaceAll("'", "'\\''")}')"'"`
  const data = filled(quoted, files, shell)
  const sent = files.length ? `printf '%s' '${data}' |\n  curl ${streams ? "-N " : ""}'${url}' --json @-` : `curl ${streams ? "-N " : ""}'${url}' --json '${data}'`
  return sent
}

function python({ url, body, streams }) {
  const { files, value } = holed(body)
  const written = filled(literal(value), files, (name) => `base64.b64encode(open(${JSON.stringify(name)}, "rb").read()).decode()`)
  const head = files.length ? "import base64\n\nimport httpx\n" : "import httpx\n"
  if (!streams) return `${head}\nbody = ${written}\nanswer = httpx.post("${url}", json=body, timeout=60)\nprint(answer.json())`
  return `${head}
body = ${written}
with httpx.stream("POST", "${url}", json=body, timeout=60) as answer:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            print(line[6:])`
}

// A value of JSON as Python writes it.
function literal(value) {
  if (value === null) return "None"
  if (value === true) return "True"
  if (value === false) return "False"
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`
  if (typeof value === "object") return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${literal(item)}`).join(", ")}}`
  return JSON.stringify(value)
}

function javascript({ url, body, streams }) {
  const { files, value } = holed(body)
  const written = filled(JSON.stringify(value), files, (name) => `readFileSync(${JSON.stringify(name)}).toString("base64")`)
  const head = files.length ? 'import { readFileSync } from "node:fs"\n\n' : ""
  const ask = `${head}const answer = await fetch("${url}", {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(${written}),
})
`
  if (!streams) return `${ask}console.log(await answer.json())`
  return `${ask}const decoder = new TextDecoder()
for await (const bytes of answer.body) console.log(decoder.decode(bytes, { stream: true }))`
}
