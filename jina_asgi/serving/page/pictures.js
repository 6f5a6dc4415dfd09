// Files and pictures as values of documents, and pictures in answers.

import { element } from "./element.js"

// The content of a file as a document holds it: base64. It keeps the file's name, for code that reads the file itself.
export class Content {
  constructor(name, base64) {
    this.name = name
    this.base64 = base64
  }

  toJSON() {
    return this.base64
  }
}

export async function contentOf(file) {
  return new Content(file.name, base64(new Uint8Array(await file.arrayBuffer())))
}

// The pixels of a picture as a tensor; scaled where the shape is declared, and channels first where that is.
export async function tensorOf(file, shape) {
  const bitmap = await createImageBitmap(file)
  const first = shape.length === 3 && [1, 3, 4].includes(shape[0]) && ![1, 3, 4].includes(shape[2])
  const [tall, wide] = first ? shape.slice(1) : shape
  const channels = (first ? shape[0] : shape[2]) || 3
  const height = tall || bitmap.height, width = wide || bitmap.width
  const canvas = new OffscreenCanvas(width, height)
  const pen = canvas.getContext("2d")
  pen.drawImage(bitmap, 0, 0, width, height)
  bitmap.close()
  const { data } = pen.getImageData(0, 0, width, height)
  const pixels = width * height
  const made = new Uint8Array(pixels * channels)
  for (let pixel = 0; pixel < pixels; pixel += 1) {
    for (let channel = 0; channel < channels; channel += 1) {
      made[first ? channel * pixels + pixel : pixel * channels + channel] = data[4 * pixel + channel]
    }
  }
  return { data: base64(made), dtype: "|u1", shape: first ? [channels, height, width] : [height, width, channels] }
}

function base64(bytes) {
  const PIECE = 0x8000 // arguments of one call
  let text = ""
  for (let at = 0; at < bytes.length; at += PIECE) text += String.fromCharCode(...bytes.subarray(at, at + PIECE))
  return btoa(text)
}

const KINDS = { iVBORw0KGgo: "png", "/9j/": "jpeg", R0lGOD: "gif", UklGR: "webp" }

// The picture that a value of an answer is: a file in base64, or the pixels of one; null: it is none.
export function pictureOf(value, label) {
  if (typeof value === "string") {
    const kind = value.length > 60 && Object.keys(KINDS).find((start) => value.startsWith(start))
    return kind ? pictureOfFile(value, `image/${KINDS[kind]}`, label) : null
  }
  const shape = pixelShape(value)
  return shape && pictureOfPixels(value, shape, label)
}

function pictureOfFile(text, type, label) {
  let bytes
  try {
    bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    return null // not base64 after all
  }
  const url = URL.createObjectURL(new Blob([bytes], { type }))
  const picture = element("img", { src: url, alt: label })
  picture.addEventListener("load", () => URL.revokeObjectURL(url))
  picture.addEventListener("error", () => URL.revokeObjectURL(url))
  return picture
}

// {height, width, channels, first} of nested lists that can be pixels; null: they cannot.
function pixelShape(value) {
  if (!Array.isArray(value) || !Array.isArray(value[0])) return null
  const [one, two, three] = [value.length, value[0].length, value[0][0]?.length]
  if (!Array.isArray(value[0][0])) return null // a matrix is rarely a picture
  if (typeof value[0][0][0] !== "number" || !value.every((row) => row.length === two)) return null
  if ([1, 3, 4].includes(three) && one >= 4 && two >= 4) return { height: one, width: two, channels: three, first: false }
  if ([1, 3].includes(one) && two >= 4 && three >= 4) return { height: two, width: three, channels: one, first: true }
  return null
}

function pictureOfPixels(value, { height, width, channels, first }, label) {
  const canvas = element("canvas", { width, height, role: "img", "aria-label": label })
  const at = (y, x, channel) => (first ? value[channel][y][x] : value[y][x][channel])
  const most = value.flat(2).reduce((high, number) => Math.max(high, number), 0)
  const scale = most <= 1 ? 255 : 1 // floats go from 0 to 1
  const pixels = new ImageData(width, height)
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const place = 4 * (y * width + x)
      for (let color = 0; color < 3; color += 1) pixels.data[place + color] = scale * at(y, x, channels < 3 ? 0 : color)
      pixels.data[place + 3] = channels === 4 ? scale * at(y, x, 3) : 255
    }
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0)
  return canvas
}
