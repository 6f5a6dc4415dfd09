// The JSON WebSocket: many calls on one socket. It is opened by the first call, and anew where it was closed.

export class Socket {
  #url;
  #open = null;
  #calls = new Map();
  #last = 0;

  /** `path` is relative to the page, such as "lm/-/ws". */
  constructor(path) {
    this.#url = new URL(path, location.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
  }

  /** Yields {name, data} as `events` does: "update" a document, then "end" or "error". Aborting stops the call. */
  async *events(endpoint, message, signal) {
    const socket = await this.#opened();
    const id = ++this.#last;
    const call = { came: [], wake: () => {} };
    const stop = () => {
      this.#say(socket, { id, event: "cancel" });
      call.wake();
    };
    this.#calls.set(id, call);
    signal?.addEventListener("abort", stop);
    this.#say(socket, { id, endpoint, ...message });
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (!call.came.length) {
          await new Promise((resolve) => (call.wake = resolve));
          continue;
        }
        const event = call.came.shift();
        if (event.event === "data") yield { name: "update", data: event.data };
        else return yield { name: event.event, data: event };
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      if (this.#calls.delete(id) && !call.over) this.#say(socket, { id, event: "cancel" });
    }
  }

  close() {
    this.#open?.then((socket) => socket.close(), () => {});
  }

  #opened() {
    return (this.#open ??= new Promise((resolve, reject) => {
      const socket = new WebSocket(this.#url);
      socket.onopen = () => resolve(socket);
      socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
      socket.onclose = () => {
        this.#open = null;
        reject(new TypeError("The server does not answer."));
        const detail = "The connection ended before the answer did.";
        for (const id of [...this.#calls.keys()]) this.#take({ id, event: "error", detail });
      };
    }));
  }

  #take(event) {
    const call = this.#calls.get(event.id);
    if (!call) return; // a ping, or what a call that was stopped had on its way
    call.over = event.event !== "data";
    call.came.push(event);
    call.wake();
  }

  #say(socket, message) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }
}
