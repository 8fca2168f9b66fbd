// The library: what is indexed, how far indexing is, which files failed, and the keys of the page.

import { get, post } from "./api.js";
import { alarm, button, byId, icon, make, setVariables } from "./dom.js";
import { count } from "./format.js";

const KEYS = [
  ["/", "to the search field"],
  ["Arrows", "from moment to moment"],
  ["Enter", "opens one"],
  ["J and K", "the next one, the one before"],
  ["Escape", "closes"],
];

export class Library {
  /**
   * @param {object} options
   * @param {() => object[]} options.collections Returns all collections.
   * @param {() => object} options.collection Returns the one that is shown.
   * @param {() => void} options.changed Told when an index has got new videos.
   */
  constructor({ collections, collection, changed }) {
    Object.assign(this, { collections, collection, changed });
    this.dialog = byId("library");
    this.state = null;
    byId("library-open").addEventListener("click", () => this.open());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    document.addEventListener("visibilitychange", () => this.follow());
  }

  /** Follows the indexing of the collection that is shown, as long as somebody looks. */
  follow() {
    const id = this.collection()?.id;
    if (document.hidden || !id) {
      this.events?.close();
      this.events = null;
      return;
    }
    if (this.events && this.followed === id) return;
    this.events?.close();
    this.followed = id;
    this.events = new EventSource(`/v1/index/events?collection=${encodeURIComponent(id)}`);
    this.events.addEventListener("progress", (event) => this.progress(JSON.parse(event.data)));
  }

  progress(state) {
    const finished = this.state?.running && !state.running;
    this.state = state;
    this.drawBar();
    this.drawProgress();
    if (finished) this.changed();
  }

  drawBar() {
    const { running, done, total } = this.state;
    const bar = byId("progress");
    bar.hidden = !running;
    setVariables(bar, { share: `${total ? (100 * done) / total : 0}%` });
    bar.setAttribute("aria-valuemin", "0");
    bar.setAttribute("aria-valuemax", String(total || 1));
    bar.setAttribute("aria-valuenow", String(done));
    byId("library-label").textContent = running ? `Indexing ${done} of ${total}` : "Library";
  }

  open() {
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const closing = make("button", { type: "button", class: "bare", "aria-label": "Close", on: { click: () => this.dialog.close() } }, icon("close"));
    this.place = make("div", { class: "indexing" });
    this.failures = make("div", {});
    const keys = KEYS.flatMap(([key, does]) => [make("dt", {}, key), make("dd", {}, does)]);
    this.dialog.replaceChildren(
      make("header", {}, make("h2", { id: "library-title" }, "Library"), closing),
      make("ul", { class: "plain collections-list" }, ...this.collections().map((one) => this.describe(one))),
      this.place,
      this.failures,
      make("h3", {}, "Keys"),
      make("dl", { class: "keys" }, ...keys),
    );
    this.drawProgress();
    this.listFailures();
  }

  describe({ id, name, model, videos, clips }) {
    const here = id === this.collection()?.id && this.collections().length > 1;
    return make(
      "li",
      {},
      make("p", { class: "name" }, name, here ? make("span", { class: "small" }, " — shown") : null),
      make("p", { class: "small" }, `${count(videos, "video")}, ${count(clips, "clip")}; model ${model.name}`),
    );
  }

  drawProgress() {
    if (!this.place?.isConnected) return;
    const { running, done, total, failed, current } = this.state ?? {};
    const bar = running ? make("progress", { max: String(total || 1), value: String(done), "aria-label": "Indexing" }) : null;
    const text = running ? `${done} of ${total} done${failed ? `, ${failed} failed` : ""}${current ? `: ${current}` : ""}` : null;
    const act = running ? button("Stop", () => this.act("stop")) : button("Look for new videos", () => this.act("start"));
    this.place.replaceChildren(...[bar, text && make("p", { class: "small", role: "status" }, text), act].filter(Boolean));
  }

  async act(action) {
    try {
      this.progress(await post("/v1/index", { action, collection: this.collection()?.id }));
    } catch (error) {
      this.place.append(alarm(error.message));
    }
  }

  async listFailures() {
    const { failures: place } = this;
    try {
      const { failures } = await get("/v1/failures", { collection: this.collection()?.id });
      const lines = failures.map(({ path, reason }) => make("li", {}, make("span", { class: "name" }, path), make("span", { class: "small" }, reason)));
      const title = make("h3", {}, `${count(failures.length, "file")} could not be read`);
      place.replaceChildren(...(lines.length ? [title, make("ul", { class: "plain failures" }, ...lines)] : []));
    } catch (error) {
      place.replaceChildren(alarm(error.message));
    }
  }
}
