// The page's behaviour: wait for the model, send a prompt, show its tokens, stop it.

import { events } from "./events.js";
import { Socket } from "./socket.js";

const $ = (id) => document.getElementById(id);
const RANGES = ["temperature", "top_p", "max_new_tokens", "repetition_penalty"];

// Whether the model is ready: asked until it is, and again when something failed.

let ready = false;
let asking = 0;

async function askReady() {
  clearTimeout(asking);
  let wait = 2;
  try {
    const answer = await fetch("lm/-/ready", { cache: "no-store" });
    if (answer.ok) return showState("ready", "Ready");
    wait = Math.min(Number(answer.headers.get("retry-after")) || 1, 5);
    const { detail } = await answer.json();
    if (/^failed/i.test(detail)) showState("gone", `The model ${detail}`);
    else showState("loading", /loading/i.test(detail) ? "The model is loading…" : detail);
  } catch {
    showState("gone", "The server does not answer");
  }
  asking = setTimeout(askReady, wait * 1000);
}

function showState(state, text) {
  ready = state === "ready";
  $("state").dataset.state = state;
  $("state-text").textContent = text;
  showButtons();
  if (ready) showSlots();
}

// What the model is asked.

function parameters() {
  const chosen = Object.fromEntries(RANGES.map((name) => [name, $(name).valueAsNumber]));
  chosen.top_k = $("top_k").valueAsNumber || 0;
  if ($("seed").value !== "") chosen.seed = $("seed").valueAsNumber;
  if ($("stop_string").value) chosen.stop = [$("stop_string").value];
  return chosen;
}

function prompt() {
  const system = $("system").value.trim();
  return system ? { text: $("prompt").value, system } : { text: $("prompt").value };
}

// One generation at a time, each with its own AbortController: aborting closes the connection, or cancels the call on the
// WebSocket; either stops the model.

let running = null;

async function generate() {
  running?.abort();
  const stopping = (running = new AbortController());
  const run = new Run();
  showButtons();
  const polling = setInterval(showSlots, 1000);
  try {
    const answer = $("transport").value === "ws" ? overSocket : overHttp;
    for await (const { name, data } of answer({ data: prompt(), parameters: parameters() }, stopping.signal)) {
      if (name === "update") run.add(data);
      else if (name === "error") throw problem(data);
      else if (name === "end") run.ended = true;
    }
    if (!run.ended) throw new Error("The connection ended before the answer did.");
    run.finish();
  } catch (error) {
    if (stopping.signal.aborted) run.finish("stopped");
    else run.fail(error);
  } finally {
    clearInterval(polling);
    if (running === stopping) running = null;
    showButtons();
    setTimeout(showSlots, 500);
  }
}

// Two ways to the same endpoint: a request whose answer is a stream of events, or a call on the page's one WebSocket.

async function* overHttp(message, signal) {
  const response = await fetch("lm/stream", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(message),
    signal,
  });
  if (!response.ok) throw problem({ status: response.status, ...(await response.json().catch(() => ({}))) });
  yield* events(response);
}

const socket = new Socket("lm/-/ws");
const overSocket = (message, signal) => socket.events("/stream", message, signal);

function problem({ status, detail }) {
  if (status === 503) askReady();
  const listed = Array.isArray(detail) ? detail.map((one) => `${one.loc?.at(-1) ?? ""}: ${one.msg}`).join("; ") : detail;
  return new Error(listed || `The server answered ${status}.`);
}

/** What one generation shows: its text, its figures, the rhythm of its tokens. */
class Run {
  constructor() {
    this.began = performance.now();
    this.gaps = [];
    this.first = this.last = 0;
    this.ended = false;
    this.reason = "";
    $("error").hidden = true;
    $("text").replaceChildren();
    $("rhythm").replaceChildren();
    for (const id of ["first", "speed", "tokens", "ended"]) $(id).textContent = "–";
    $("answer").setAttribute("aria-busy", "true");
    $("said").textContent = "The model is writing.";
  }

  add({ text, tokens, finish_reason }) {
    const now = performance.now();
    if (this.first) this.beat(now - this.last);
    else $("first").textContent = seconds((this.first = now) - this.began);
    this.last = now;
    this.reason = finish_reason ?? "";
    $("tokens").textContent = tokens;
    if (tokens > 1) $("speed").textContent = `${(((tokens - 1) * 1000) / (now - this.first)).toFixed(1)} /s`;
    if (!text) return;
    const box = $("text");
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    const piece = document.createElement("span");
    piece.className = "token";
    piece.textContent = text;
    box.append(piece);
    if (follows) box.scrollTop = box.scrollHeight;
  }

  /** A bar for each of the last tokens, as high as it took long. */
  beat(gap) {
    this.gaps.push(gap);
    const shown = this.gaps.slice(-80);
    const most = Math.max(...shown, 1);
    const bars = shown.map((one, place) => {
      const height = 2 + (26 * one) / most;
      return `M${place * 3 + 1} 32v-${height.toFixed(1)}`;
    });
    $("rhythm").innerHTML = `<path d="${bars.join("")}" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/>`;
  }

  finish(how) {
    const words = { stop: "by itself", length: "at the limit", stopped: "by you" };
    this.done(words[how ?? this.reason] ?? "–");
  }

  fail(error) {
    $("error").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    $("error").hidden = false;
    if (error instanceof TypeError) askReady();
    this.done("with an error");
  }

  done(how) {
    $("answer").setAttribute("aria-busy", "false");
    $("ended").textContent = how;
    $("said").textContent = `The answer ended ${how}.`;
  }
}

const seconds = (ms) => (ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

// How busy the model is, with everybody's requests.

async function showSlots() {
  try {
    const answer = await fetch("lm/state", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ data: {} }),
    });
    if (!answer.ok) return;
    const [{ slots, running, waiting }] = (await answer.json()).data;
    $("slots").hidden = false;
    $("slots-row").replaceChildren(
      ...Array.from({ length: slots }, (_, place) =>
        Object.assign(document.createElement("i"), { className: place < running ? "taken" : "" }),
      ),
    );
    $("slots-text").textContent = `${running} of ${slots} streams` + (waiting ? `, ${waiting} waiting` : "");
  } catch {
    askReady();
  }
}

/** One of the two buttons stands there; the keyboard's focus goes with it. */
function showButtons() {
  const [shown, other] = running ? [$("stop"), $("go")] : [$("go"), $("stop")];
  const focused = document.activeElement === other;
  $("go").disabled = !ready;
  shown.hidden = false;
  other.hidden = true;
  if (focused) shown.focus();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (ready && !running && $("controls").reportValidity()) generate();
});
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("stop").addEventListener("click", () => running?.abort());
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    $("prompt").value = chip.dataset.prompt;
    if (running) $("prompt").focus();
    else $("form").requestSubmit();
  });
}
// A page that the browser keeps for its "back" button keeps its connections too.
addEventListener("pagehide", () => {
  running?.abort();
  socket.close();
});
for (const name of RANGES) {
  const show = () => ($(`${name}-value`).textContent = $(name).value);
  $(name).addEventListener("input", show);
  show();
}
if (/Mac|iPhone|iPad/.test(navigator.platform)) $("hint").textContent = "⌘ ⏎";
askReady();
