// Places the nodes of a graph in layers from left to right. Pure: names in, numbers out.

export const WIDTH = 228
export const HEIGHT = 118
const ACROSS = 44 // between layers
const BETWEEN = 24 // between the nodes of a layer
const BEND = 18 // height that an edge takes where it passes a layer
const SWEEPS = 6

// `nodes` are {name, needs, dotted}; returns {places: Map name -> {x, y, width, height}, edges: [{from, to, dotted, points}], width, height}.
export function placed(nodes, { first, last, end }) {
  const all = new Map()
  const add = (name, needs, width, height) => all.set(name, { name, needs, takers: [], width, height, layer: 0, y: 0 })
  add(first, [], 76, 34)
  for (const node of nodes) add(node.name, node.needs, WIDTH, HEIGHT)
  add(last, [end], 76, 34)
  for (const node of all.values()) node.layer = 1 + Math.max(-1, ...node.needs.map((need) => all.get(need).layer))
  all.get(last).layer = Math.max(...[...all.values()].map((node) => node.layer))
  const dotted = new Set(nodes.filter((node) => node.dotted).map((node) => node.name))
  const edges = bent(all, dotted)
  const layers = []
  for (const node of all.values()) (layers[node.layer] ??= []).push(node)
  order(layers)
  let x = 0
  for (const layer of layers) {
    const widest = Math.max(...layer.map((node) => node.width))
    for (const node of layer) node.x = x + (widest - node.width) / 2
    x += widest + ACROSS
  }
  const top = Math.min(...[...all.values()].map((node) => node.y))
  for (const node of all.values()) node.y -= top
  const height = Math.max(...[...all.values()].map((node) => node.y + node.height))
  return {
    places: new Map([...all].filter(([, node]) => !node.bend)),
    layers: layers.map((layer) => layer.filter((node) => !node.bend).map((node) => node.name)),
    edges: edges.map(({ from, to, path, dotted }) => ({ from, to, dotted, points: path.flatMap(ends) })),
    width: x - ACROSS,
    height,
  }
}

// Where an edge leaves and enters: only the right side of its first place, only the left side of its last.
function ends(node, at, path) {
  const y = node.y + node.height / 2
  const left = { x: node.x, y }, right = { x: node.x + node.width, y }
  return at === 0 ? [right] : at === path.length - 1 ? [left] : [left, right]
}

// The edges; one that passes layers gets a place of its own in each, so that no node covers it.
function bent(all, dotted) {
  const edges = []
  for (const to of [...all.values()]) {
    for (const need of to.needs) {
      const from = all.get(need), path = [from]
      for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
        const name = `${need}\n${to.name}\n${layer}`
        all.set(name, { name, needs: [], takers: [], width: WIDTH, height: BEND, layer, y: 0, bend: true })
        path.push(all.get(name))
      }
      path.push(to)
      edges.push({ from: need, to: to.name, path, dotted: dotted.has(to.name) })
    }
  }
  for (const node of all.values()) node.needs = []
  for (const { path } of edges) {
    for (const [at, node] of path.slice(1).entries()) {
      node.needs.push(path[at])
      path[at].takers.push(node)
    }
  }
  return edges
}

const middle = (node) => node.y + node.height / 2
const mean = (nodes) => nodes.reduce((sum, node) => sum + middle(node), 0) / nodes.length

// Orders each layer by its neighbours, forth and back, and keeps each node as near to them as the others allow.
function order(layers) {
  for (const layer of layers) stack(layer, layer.map((_, at) => at * (HEIGHT + BETWEEN)))
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0
    for (const layer of forth ? layers : [...layers].reverse()) {
      const wished = new Map(layer.map((node) => {
        const near = forth ? node.needs : node.takers
        return [node, near.length ? mean(near) : middle(node)]
      }))
      layer.sort((one, other) => wished.get(one) - wished.get(other))
      stack(layer, layer.map((node) => wished.get(node)))
    }
  }
}

// Places a layer's nodes in their order, without overlaps, around the middles that are wished for.
function stack(layer, wished) {
  let below = -Infinity, moved = 0
  for (const [at, node] of layer.entries()) {
    node.y = Math.max(wished[at] - node.height / 2, below)
    below = node.y + node.height + (node.bend && layer[at + 1]?.bend ? 0 : BETWEEN)
    moved += middle(node) - wished[at]
  }
  for (const node of layer) node.y -= moved / layer.length
}
