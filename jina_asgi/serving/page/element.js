// Makes elements of the page and of its pictures; nothing here knows what they mean.

const SVG = "http://www.w3.org/2000/svg"

export const element = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children)

export const drawn = (name, attributes = {}, ...children) => filled(document.createElementNS(SVG, name), attributes, children)

// Attributes with the value false or null are left out; those that begin with "on" are listeners.
function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value)
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value)
  }
  made.append(...children.filter((child) => child !== null && child !== undefined))
  return made
}

// Changes a text only where it differs, so that the browser lays out nothing anew for figures that rest.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text
}

export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value)
}

// A button that copies what `text` returns, and says so for a moment.
export function copier(button, text) {
  const label = button.textContent
  button.addEventListener("click", async () => {
    let said = "Copied"
    try {
      await navigator.clipboard.writeText(text())
    } catch {
      said = "Not allowed"
    }
    button.textContent = said
    setTimeout(() => { button.textContent = label }, 1500)
  })
  return button
}

let last = 0
export const freshId = (stem) => `${stem}-${(last += 1)}`
